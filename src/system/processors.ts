import { availableParallelism } from 'node:os'

/** How many this process may use at once. */
export const processors = availableParallelism()

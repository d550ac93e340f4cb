import type { FaultOdds } from '../support/fault-plan.ts'

/** More of everything than a store that anybody would keep. */
export const stormOdds: FaultOdds = {
  slowDown: 0.02,
  internalError: 0.02,
  accessDenied: 0.005,
  preconditionFailed: 0.005,
  slowDownAfterwards: 0.005,
  resetRequest: 0.01,
  resetAnswer: 0.01,
  lostAnswer: 0.01,
  silence: 0.001,
  truncate: 0.01,
  alter: 0.01,
  stall: 0.002,
}

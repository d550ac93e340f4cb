import path from 'node:path'
import { fileURLToPath } from 'node:url'

/** The path of a program in this directory: TypeScript in a checkout, JavaScript in the published package. */
export function siblingProgram(name: string): string {
  return fileURLToPath(new URL(`./${name}${path.extname(import.meta.url)}`, import.meta.url))
}

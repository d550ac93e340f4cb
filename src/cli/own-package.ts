import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

/** Where package.json is: two levels up, in a checkout as in the published package. */
const packageDirectory = new URL('../../', import.meta.url)

/** The absolute path of a file of ours outside of the program. */
export function ownFile(path: string): string {
  return fileURLToPath(new URL(path, packageDirectory))
}

export function packageVersion(): string {
  return (JSON.parse(readFileSync(ownFile('package.json'), 'utf8')) as { version: string }).version
}

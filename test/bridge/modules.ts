// Texts of modules that the tests of the bridge share.

import type { Places } from './bridged-server.ts'

/**
 * Copies files to the archive, and where the trouble is there does something else first: the given statements, with
 * `server`, `file` and `path` in scope.
 */
export const copying =
  (inTrouble = '') =>
  ({ archive, trouble, journal }: Places) =>
    `
import { appendFileSync, copyFileSync, existsSync } from 'node:fs'
export function _PG_archive_module_init(server) {
  return {
    async archive_file_cb(state, file, path) {
      appendFileSync('${journal}', 'attempt ' + file + '\\n')
      if (existsSync('${trouble}')) {
        ${inTrouble}
      }
      copyFileSync(path, '${archive}/' + file)
      return true
    },
  }
}
`

/**
 * The same, with the trouble in another callback, or outside of all. `blockInTrouble` holds the thread as an endless loop
 * does, but leaves the processors to the servers.
 */
export const copyingWith =
  ({ atTop = '', inInit = '', callback = '' }) =>
  ({ archive, trouble, journal }: Places) =>
    `
import { appendFileSync, copyFileSync, existsSync } from 'node:fs'
const inTrouble = () => existsSync('${trouble}')
const note = text => appendFileSync('${journal}', text + '\\n')
function blockInTrouble() {
  while (inTrouble()) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10)
}
${atTop}
export function _PG_archive_module_init(server) {
  ${inInit}
  return {
    ${callback}
    archive_file_cb(state, file, path) {
      note('attempt ' + file)
      copyFileSync(path, '${archive}/' + file)
      return true
    },
  }
}
`

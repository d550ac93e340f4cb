// The module that a storm rages around.

import type { Places } from './bridged-server.ts'

/** What the module does to itself when it is given the next file, and its test has asked for that. */
export const ownBlows = {
  blocked: 'for (;;);',
  'ended by the module': 'process.exit(0)',
  silent: 'await pause(4_000)',
  busy: 'await pause(700)',
  failing: `throw new Error('a storm')`,
} as const

export type OwnBlow = keyof typeof ownBlows

export interface StormModuleOptions {
  archivesAhead?: boolean
  /** Two background workers: one that waits, and one that holds its thread. */
  hasWorkers?: boolean
}

/**
 * Never replaces a file, accepts one that it has, and gives a copy its name when it is complete. Its journal tells of
 * files that were given to it twice at once, and how many it has had at once.
 */
export const stormModule =
  ({ archivesAhead = false, hasWorkers = false }: StormModuleOptions) =>
  ({ root, archive, trouble, journal }: Places) =>
    `
import { appendFileSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { copyFile, readFile, rename } from 'node:fs/promises'

const note = text => appendFileSync('${journal}', text + '\\n')
const pause = ms => new Promise(resolve => setTimeout(resolve, ms))
const claims = '${root}/claims'
const begun = new Set()
let mostAtOnce = 0

// One that has ended may not have been waited for yet.
function isRunning(pid) {
  try {
    const stat = readFileSync('/proc/' + pid + '/stat', 'latin1')
    return !/^[ZX]/.test(stat.slice(stat.lastIndexOf(')') + 2))
  } catch {
    return false
  }
}

// A claim outlives a process that was killed, so it tells whose it is.
function begin(file) {
  const claim = claims + '/' + file
  try {
    writeFileSync(claim, String(process.pid), { flag: 'wx' })
  } catch {
    const pid = Number(readFileSync(claim, 'utf8'))
    if (begun.has(file) || (pid !== process.pid && isRunning(pid))) note('twice at once: ' + file + ' by ' + pid + ' and ' + process.pid)
    writeFileSync(claim, String(process.pid))
  }
  begun.add(file)
  if (begun.size > mostAtOnce) note('at once: ' + (mostAtOnce = begun.size))
}

function end(file) {
  begun.delete(file)
  rmSync(claims + '/' + file, { force: true })
}

function takeBlow() {
  try {
    const blow = readFileSync('${trouble}', 'utf8')
    rmSync('${trouble}')
    return blow
  } catch {
    return ''
  }
}

export async function waits() {
  for (;;) await pause(60_000)
}

export function blocks() {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)
}

export function _PG_archive_module_init(server) {
  mkdirSync(claims, { recursive: true })
  if (${hasWorkers})
    for (const name of ['waits', 'blocks'])
      server.RegisterBackgroundWorker({ bgw_name: 'storm ' + name, bgw_function_name: name, bgw_restart_time: 1 })

  async function strike() {
    switch (takeBlow()) {
      ${Object.entries(ownBlows)
        .map(([blow, statement]) => `case '${blow}': ${statement}; break`)
        .join('\n      ')}
    }
  }

  return {
    archive_ahead: ${archivesAhead},
    async archive_file_cb(state, file, path) {
      begin(file)
      try {
        await strike()
        const archived = '${archive}/' + file
        if (existsSync(archived)) {
          if ((await readFile(archived)).equals(await readFile(path))) return true
          server.ereport('ERROR', { errmsg: 'archive file "' + file + '" already exists with other content' })
        }
        await copyFile(path, archived + '.incomplete')
        await rename(archived + '.incomplete', archived)
        return true
      } finally {
        end(file)
      }
    },
  }
}
`

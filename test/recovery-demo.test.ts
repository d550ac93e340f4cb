// What the README invites everybody to run first.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { promisify } from 'node:util'

const run = promisify(execFile)
const checkout = join(import.meta.dirname, '..')

/** What it prints, without what differs from run to run. */
async function demo(...options: string[]): Promise<string[]> {
  const { stdout } = await run(join(checkout, 'scripts/demo'), options, { cwd: '/' })
  return stdout
    .replaceAll(/^ *[\d.]+ s {2}/gm, '')
    .replaceAll(/(file:\/\/)?\/(?:\S*?\/)?pga-[^/'\s,]+/g, '$1/<dir>')
    .replaceAll(/\b[0-9a-f]{32}\b/g, '<md5>')
    .replaceAll(/\b\d{4}-\d\d-\d\d [\d:.]+\+00/g, '<moment>')
    .replaceAll(/'\/\S+\/bin\/pgarchivist /g, `'<checkout>/bin/pgarchivist `)
    .replaceAll(/\d+\/[0-9A-F]+ to \d+\/[0-9A-F]+/g, '<lsn> to <lsn>')
    .split('\n')
}

const story = [
  '10,000 orders are taken',
  'a base backup is taken, from <lsn> to <lsn>',
  'business goes on: 35,000 orders, md5 of all rows <md5>',
  'the table of orders is dropped by accident, just after <moment>',
  'all WAL up to here is archived, the last of it in 000000010000000000000008',
  'a second PostgreSQL is recovered to that moment:',
  `            restore_command = '<checkout>/bin/pgarchivist archive-get "%f" "%p"'`,
  "            recovery_target_time = '<moment>'",
  'it has all 35,000 orders, md5 <md5>: the same; the first has none',
  'pgarchivist verify --decode says of the repository:',
]

// What verify prints has tests of its own.
const verdict = /^ {12}all right: 9 objects, .* decoded$/

function assertTold(lines: string[], start: string[], end: string[]): void {
  const told = [...start, ...story]
  assert.deepEqual(lines.slice(0, told.length), told)
  const rest = lines.slice(told.length)
  const last = rest.findIndex(line => verdict.test(line))
  assert(last >= 0, `verify was not content:\n${rest.join('\n')}`)
  assert.deepEqual(rest.slice(last + 1), end)
}

const goodbye = ['', 'Nothing was lost. The demo removes its servers and files again.', '']

describe('the demo', { concurrency: 2 }, () => {
  test('gets a table back that a server with our library has archived', async () => {
    assertTold(
      await demo(),
      [
        'PostgreSQL 18 runs in /<dir>, and archives by itself:',
        "            archive_library = 'pgarchivist'",
        "            pgarchivist.repository = 'file:///<dir>/repository'",
      ],
      goodbye,
    )
  })

  test('gets it back from an archiver beside the server as well', async () => {
    assertTold(
      await demo('--beside', '--major', '15'),
      [
        'PostgreSQL 15 runs in /<dir>',
        'beside it runs "pgarchivist archiver":',
        "            archive_library = 'repository'",
        "            pgarchivist.repository = 'file:///<dir>/repository'",
      ],
      ['the archiver has ended cleanly', ...goodbye],
    )
  })
})

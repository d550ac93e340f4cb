// The module `repository` as a server sees it: its settings, what it says, and what every module must do.

import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { generateIdentity } from 'age-encryption'
import { openRepository } from '../src/cli/open-repository.ts'
import { archiveModuleConformance } from '../src/contract/conformance.ts'
import type { LogMessage } from '../src/contract/error-report.ts'
import { GucRegistry } from '../src/host/guc-registry.ts'
import { parseCommandLineSetting, settingsOf } from '../src/host/settings.ts'
import { startModule } from '../src/host/start-module.ts'
import { repositoryModule } from '../src/modules/repository.ts'
import { recipientOf } from '../src/repository/codec/recipient.ts'
import { parseWalObjectKey } from '../src/repository/object-key.ts'
import { fileUrl } from '../src/repository/store/local-store.ts'
import { realClock } from '../src/system/clock.ts'
import { realFiles } from '../src/system/real-files.ts'
import { keyOf, realStage } from './support/repository-stage.ts'
import { anySystemIdentifier } from './support/wal-segment.ts'

const init = repositoryModule({ files: realFiles, clock: realClock, openRepository })
const name = '000000010000000000000001'

describe('repository conforms', () => {
  const facts = archiveModuleConformance({
    init,
    newArchive: async () => {
      const directory = await mkdtemp(join(tmpdir(), 'conformance-'))
      const repository = await openRepository({ scheme: 'file', directory }, {})
      return {
        settings: { 'pgarchivist.repository': fileUrl(directory) },
        archived: async file => {
          for await (const { key } of repository.store.list('')) {
            const object = parseWalObjectKey(key)
            if (object?.name !== file) continue
            const pieces: Uint8Array[] = []
            const request = { ...object, identities: async () => [] }
            await repository.fetch(request, async bytes => void pieces.push(bytes))
            return Buffer.concat(pieces)
          }
          return undefined
        },
        close: () => rm(directory, { recursive: true }),
      }
    },
  })
  for (const fact of facts) {
    test(fact.name, context =>
      fact.prove({ skip: reason => context.diagnostic(`does not apply: ${reason}`) }),
    )
  }
})

/** The module in a server of its own, on a cluster and a repository in a real directory. */
async function startServer(
  stage: Awaited<ReturnType<typeof realStage>>,
  settings: Record<string, string> = { repository: fileUrl(stage.root) },
  facts: { system_identifier?: string | undefined } = {},
) {
  const told: string[] = []
  const log = ({ level, errmsg, errdetail, errhint }: LogMessage) => {
    if (level === 'DEBUG3') return
    told.push(`${level}: ${errmsg}`)
    if (errdetail !== undefined) told.push(`DETAIL: ${errdetail}`)
    if (errhint !== undefined) told.push(`HINT: ${errhint}`)
  }
  const asSettings = (values: Record<string, string>) =>
    settingsOf(
      Object.entries(values).map(([key, value]) => ({
        ...parseCommandLineSetting(`pgarchivist.${key}=${value}`),
        source: 'PGC_S_FILE' as const,
      })),
    )
  const gucs = new GucRegistry({ log })
  gucs.load(asSettings(settings))
  const host = await startModule({
    init,
    facts: {
      data_directory: stage.data,
      server_version_num: 170_000,
      system_identifier: anySystemIdentifier,
      wal_segment_size: 1024 * 1024,
      wal_page_magic: 0xd116,
      ...facts,
    },
    gucs,
    registerWorker: () => {},
    log,
  })
  return {
    host,
    told,
    reload: (values: Record<string, string>) => gucs.reload(asSettings(values)),
    archive: (file: string) =>
      host.archiveFile(file, join(stage.data, 'pg_wal', file), new AbortController().signal),
  }
}

test('the first file begins a repository, which is told; the next ones say nothing', async () => {
  await using stage = await realStage()
  const { archive, told, host } = await startServer(stage)
  assert.equal(host.archivesAhead, true)
  for (const each of [name, '000000010000000000000002']) {
    await stage.putSegment(each)
    assert.equal(await archive(each), true)
  }
  const { id } = JSON.parse(await readFile(join(stage.root, 'pgarchivist-repository.json'), 'utf8')) as {
    id: string
  }
  assert.match(id, /^[0-9a-f-]{36}$/)
  assert.deepEqual(told, [
    `LOG: began a new repository at "${fileUrl(stage.root)}"`,
    `DETAIL: Its id is ${id}.`,
    `DEBUG1: archived "${name}" in repository "${fileUrl(stage.root)}"`,
    `DEBUG1: archived "000000010000000000000002" in repository "${fileUrl(stage.root)}"`,
  ])
})

test('it is configured when a repository is set', async () => {
  await using stage = await realStage()
  const { host, told, reload } = await startServer(stage, {})
  assert.deepEqual(await host.checkConfigured(), {
    configured: false,
    errdetail: '"pgarchivist.repository" is not set, or was refused.',
  })
  reload({ repository: fileUrl(stage.root) })
  assert.deepEqual(await host.checkConfigured(), { configured: true })
  assert.deepEqual(told, [])
})

test('a repository that cannot be used is told at the start, and again by every file', async () => {
  await using stage = await realStage()
  await rm(stage.root, { recursive: true })
  const { archive, told } = await startServer(stage)
  const said = [
    `could not open repository directory "${stage.root}": No such file or directory`,
    "HINT: Mount the disk, or make an empty directory that belongs to the server's user: it is never made for you.",
  ]
  await stage.putSegment(name)
  assert.equal(await archive(name), false)
  assert.deepEqual(told, [`WARNING: ${said[0]}`, said[1], `ERROR: ${said[0]}`, said[1]])
})

test('whatever is refused is an ERROR with detail and hint, and the file is not archived', async () => {
  await using stage = await realStage()
  const { archive, told } = await startServer(stage)
  await stage.putSegment(name, { systemIdentifier: '42' })
  assert.equal(await archive(name), false)
  assert.deepEqual(told.slice(2), [
    `ERROR: file "${name}" belongs to another cluster`,
    `DETAIL: Its system identifier is 42, that of this cluster is ${anySystemIdentifier}.`,
    'HINT: Nothing was stored. Find out how the file came into pg_wal. A server with a page format of its own needs "pgarchivist.header_check = off".',
  ])
})

test('without a system identifier nothing is archived, of whatever kind', async () => {
  await using stage = await realStage()
  const { archive, told } = await startServer(stage, undefined, { system_identifier: undefined })
  for (const each of [name, '00000002.history', `${name}.00000028.backup`]) {
    await stage.put(each, 'x')
    assert.equal(await archive(each), false)
  }
  const said = [
    `ERROR: the system identifier of the cluster in "${stage.data}" is not known`,
    'HINT: It is in the control file "global/pg_control": is this a data directory, and may this user read it?',
  ]
  assert.deepEqual(told, [...said, ...said, ...said])
})

test('a value that is refused on reload is one line that does not repeat it, and the old one stays', async () => {
  await using stage = await realStage()
  const url = fileUrl(stage.root)
  const recipient = recipientOf(await generateIdentity())
  const { archive, told, reload } = await startServer(stage, {
    repository: url,
    encryption_recipients: recipient,
  })
  const secret = await generateIdentity()
  const refusals: Array<[Record<string, string>, string[]]> = [
    [
      { repository: 'srv/wal' },
      [
        'WARNING: invalid value for parameter "pgarchivist.repository": repository "srv/wal" is not a URL',
        'HINT: Write "file://" and an absolute path, as "file:///srv/wal".',
      ],
    ],
    [
      { repository: 's3://me:S3cr3t@bucket' },
      [
        'WARNING: invalid value for parameter "pgarchivist.repository": repository "s3://…@bucket" holds credentials',
        'HINT: Every role may see this setting: put credentials into the environment of the server, or into a file that "profile" names a part of.',
      ],
    ],
    [
      { repository: 'file:///a,file:///a' },
      [
        'WARNING: invalid value for parameter "pgarchivist.repository": "pgarchivist.repository" names directory "/a" twice',
        'HINT: Name each repository once: a file that is twice in one place is there once.',
      ],
    ],
    [
      { encryption_recipients: secret },
      [
        'WARNING: invalid value for parameter "pgarchivist.encryption_recipients": recipient 1 is a secret key; its public key is wanted, which "age-keygen -y" prints',
      ],
    ],
    [
      { encryption_recipients: `${recipient}, age1x` },
      [
        'WARNING: invalid value for parameter "pgarchivist.encryption_recipients": recipient 2 is not a valid public key of age: it is damaged or not complete',
      ],
    ],
    [
      { encryption_recipients: Array.from({ length: 33 }, () => recipient).join() },
      [
        'WARNING: invalid value for parameter "pgarchivist.encryption_recipients": there are 33 recipients',
        'HINT: An object has room for 32.',
      ],
    ],
    [
      { compression_level: '99' },
      ['WARNING: 99 is outside the valid range for parameter "pgarchivist.compression_level" (1 .. 19)'],
    ],
  ]
  for (const [values, said] of refusals) {
    told.length = 0
    const before = { repository: url, encryption_recipients: recipient }
    assert.deepEqual(reload({ ...before, ...values }), [])
    assert.deepEqual(told, said)
    assert.ok(!told.join().includes(secret) && !told.join().includes('S3cr3t'))
  }
  await stage.putSegment(name)
  assert.equal(await archive(name), true)
  assert.ok((await stage.object(name)).includes(recipient))
})

test('as many recipients as an object has room for are taken', async () => {
  await using stage = await realStage()
  const identities = await Promise.all(Array.from({ length: 32 }, () => generateIdentity()))
  const list = identities.map(recipientOf).join(', ')
  const { archive, told } = await startServer(stage, {
    repository: fileUrl(stage.root),
    encryption_recipients: list,
  })
  const content = await stage.putSegment(name)
  assert.equal(await archive(name), true, told.join('\n'))
  assert.deepEqual(await stage.start().fetch(name, identities.slice(-1)), content)
})

test('new settings are in force with the next file', async () => {
  await using stage = await realStage()
  const { archive, told, reload } = await startServer(stage, {
    repository: fileUrl(stage.root),
    header_check: 'on',
  })
  await stage.put(name, 'no segment')
  assert.equal(await archive(name), false)
  const second = await mkdtemp(join(stage.above, 'second-'))
  reload({ repository: fileUrl(second), header_check: 'off' })
  assert.equal(await archive(name), true)
  assert.ok(told.includes(`LOG: began a new repository at "${fileUrl(second)}"`))
  assert.ok(await realFiles.stat(join(second, keyOf(name))))
})

test('a key that was refused at the start stops archiving instead of encrypting nothing', async () => {
  await using stage = await realStage()
  await stage.putSegment(name)
  const recipient = recipientOf(await generateIdentity())
  const repository = fileUrl(stage.root)
  const { archive, told, reload } = await startServer(stage, {
    repository,
    encryption_recipients: recipient.slice(0, -1),
  })
  const refusal = 'nothing is archived, because the value of "pgarchivist.encryption_recipients" was refused'
  assert.equal(await archive(name), false)
  assert.ok(told.includes(`WARNING: ${refusal}`), told.join('\n'))
  assert.ok(told.includes(`ERROR: ${refusal}`), told.join('\n'))
  reload({ repository, encryption_recipients: recipient })
  assert.equal(await archive(name), true)
  // One that is refused while another is in force changes nothing.
  reload({ repository, encryption_recipients: 'age1nothing' })
  await stage.putSegment('000000010000000000000002')
  assert.equal(await archive('000000010000000000000002'), true)
})

// What is archived can be read for as long as there are zstd, age and a shell. The lines that do it are taken from the
// page that promises them, as they stand there.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { promisify } from 'node:util'
import type { ObjectMetadata } from '../src/repository/metadata-block.ts'
import { realFiles } from '../src/system/real-files.ts'
import { noise } from './support/coded-bytes.ts'
import { FilledRepository } from './support/filled-repository.ts'
import { temporaryDirectory } from './support/unprivileged.ts'
import { anySystemIdentifier, walSegment } from './support/wal-segment.ts'

const run = promisify(execFile)
const checkout = join(import.meta.dirname, '..')
const page = await readFile(join(checkout, 'src/repository/FORMAT.md'), 'utf8')
const commands = (await run(join(checkout, 'scripts/commands/install'))).stdout.trim()

const directory = await temporaryDirectory()
after(async () => await directory[Symbol.asyncDispose]())
const at = (name: string) => join(directory.path, name)

// An operator's keys, made as operators make them.
await run(join(commands, 'age-keygen'), ['-o', at('key')])
await run(join(commands, 'age-keygen'), ['-o', at('other key')])
const { stdout } = await run(join(commands, 'age-keygen'), ['-y', at('key')])
const recipient = stdout.trim()

const lines = new Map<string, string>()
for (const [, block = ''] of page.matchAll(/^```sh\n(.*?)^```$/gms)) {
  for (const line of block.trimEnd().split('\n')) {
    const [command = '', comment = ''] = line.split(/ {2,}# /)
    lines.set(comment, command)
  }
}

/** Runs a line of the page by what stands behind it there, on an object. Returns what it prints. */
async function say(comment: string, object: string, key = 'key'): Promise<string> {
  const line = lines.get(comment)
  assert(line !== undefined, `FORMAT.md has no line for "${comment}"`)
  const command = line.replaceAll(/\b(OBJECT|KEYFILE|FILE)\b/g, '"$$$1"')
  const env = { PATH: `${commands}:/usr/bin:/bin`, OBJECT: object, FILE: at('file'), KEYFILE: at(key) }
  return (await run('/bin/sh', ['-c', command], { env })).stdout
}

async function bytesFrom(comment: string, object: string): Promise<Buffer> {
  await writeFile(at('file'), 'what was there before')
  assert.equal(await say(comment, object), '')
  return await readFile(at('file'))
}

interface Told {
  text: string
  members: ObjectMetadata
}

async function whatItSays(object: string): Promise<Told> {
  const text = await say('what the object says of itself', object)
  const title = `${/`(pgarchivist object, format \d+)`/.exec(page)?.[1]}\n`
  assert.equal(text.slice(0, title.length), title)
  const [, last] = table('bytes')[0]?.[0]?.match(/^0–(\d+)$/) ?? []
  return { text, members: JSON.parse(text.slice(title.length, Number(last) + 1)) }
}

/** The cells of the table in the page whose first column is called so. */
function table(firstColumn: string, occurrence = 0): string[][] {
  const found = [
    ...page.matchAll(new RegExp(`^\\| ${firstColumn} \\|.*\\n\\|[-|]+\\|\\n((?:\\|.*\\n)+)`, 'gm')),
  ]
  const rows = found[occurrence]?.[1]?.trimEnd().split('\n') ?? []
  return rows.map(row =>
    row
      .split('|')
      .slice(1, -1)
      .map(cell => cell.trim().replaceAll('`', '')),
  )
}

const segment = '00000001000000000000002A'
const big = '000000020000000100000003'
const contents = new Map<string, Uint8Array>([
  [segment, walSegment({ name: segment })],
  // With much that cannot be compressed, and longer than anything is read at once.
  [big, Buffer.concat([noise(5 * 1024 * 1024), Buffer.alloc(11 * 1024 * 1024)])],
  ['00000002.history', Buffer.from('1\t0/2B000000\tno recovery target specified\n')],
  [`${segment}.00000028.backup`, Buffer.from('START WAL LOCATION: 0/2A000028\n')],
  [`${big}.partial`, new Uint8Array()],
])

async function archiveAll(name: string, recipients: string[]): Promise<FilledRepository> {
  await mkdir(at(name))
  const repository = new FilledRepository(realFiles, at(name))
  for (const [file, content] of contents) await repository.archive([file], { content, recipients })
  return repository
}

const kinds = [
  { encryption: 'none', repository: await archiveAll('plain', []) },
  { encryption: 'age', repository: await archiveAll('encrypted', [recipient]) },
] as const

test('the page has the lines that are tried here, and no other', () => {
  assert.deepEqual(
    [...lines.keys()].toSorted(),
    [
      'encryption: age',
      'encryption: none',
      'has to be plaintext_xxh128',
      'has to be stored_sha256',
      'what the object says of itself',
    ].toSorted(),
  )
})

for (const { encryption, repository } of kinds) {
  const comment = `encryption: ${encryption}`
  describe(`where the encryption is "${encryption}"`, () => {
    for (const [name, content] of contents) {
      test(`one line gives "${name}" back`, async () => {
        assert((await bytesFrom(comment, repository.pathOf(name))).equals(content))
      })

      test(`"${name}" has the digests that it says it has`, async () => {
        const object = repository.pathOf(name)
        const { members } = await whatItSays(object)
        assert.equal(members.encryption, encryption)
        assert.equal(await say('has to be stored_sha256', object), `${members.stored_sha256}  -\n`)
        await bytesFrom(comment, object)
        assert.equal(
          await say('has to be plaintext_xxh128', object),
          `${members.plaintext_xxh128}  ${at('file')}\n`,
        )
      })
    }

    test('a flipped bit is found by the digest, and by the line that would give the file back', async () => {
      const bytes = await readFile(repository.pathOf(big))
      const { members } = await whatItSays(repository.pathOf(big))
      for (const position of [4_096, 4_096 + 300, 1_000_000, bytes.length - 1]) {
        const damaged = Buffer.from(bytes)
        damaged[position] = (damaged[position] ?? 0) ^ 4
        await writeFile(at('damaged'), damaged)
        const digest = await say('has to be stored_sha256', at('damaged'))
        assert.notEqual(digest, `${members.stored_sha256}  -\n`, `at ${position}`)
        await assert.rejects(say(comment, at('damaged')), `at ${position}`)
      }
    })

    test('a missing end is found by the line that would give the file back', async () => {
      const bytes = await readFile(repository.pathOf(big))
      for (const length of [4_096, 4_097, 1_000_000, bytes.length - 1]) {
        await writeFile(at('damaged'), bytes.subarray(0, length))
        await assert.rejects(say(comment, at('damaged')), `of ${length} bytes`)
      }
    })

    test('the metadata are what the page says, neither more nor less', async () => {
      for (const name of contents.keys()) {
        const object = repository.pathOf(name)
        const { text, members } = await whatItSays(object)
        const documented = table('member', 1).map(([member]) => member)
        assert.deepEqual(Object.keys(members).toSorted(), documented.toSorted())
        const ranges = table('bytes').map(([range = '']) => range.split('–').map(Number))
        const [[, textEnd = 0] = [], [from = 0, to = 0] = []] = ranges
        const block = Buffer.from(text)
        assert.equal(block.length, to + 1)
        const checksum = createHash('sha256')
          .update(block.subarray(0, textEnd + 1))
          .digest('hex')
        assert.equal(block.toString('latin1', from, to + 1), `${checksum}\n`)
        assert.equal(members.plaintext_length, contents.get(name)?.length)
        assert.equal(members.name, name)
        assert.equal(members.system_identifier, anySystemIdentifier)
        assert.equal(members.compression, 'zstd')
        assert.deepEqual(members.recipients, encryption === 'age' ? [recipient] : [])
      }
    })

    test('objects are where the page says', async () => {
      const root = at(encryption === 'age' ? 'encrypted' : 'plain')
      const entries = await readdir(root, { recursive: true, withFileTypes: true })
      const files = entries
        .filter(entry => entry.isFile())
        .map(entry => join(entry.parentPath, entry.name).slice(root.length + 1))
      const [[marker = ''] = [], [ofSegment = ''] = [], [ofHistory = ''] = []] = table('key')
      const expected = [...contents.keys()].map(name =>
        (name.endsWith('.history') ? ofHistory : ofSegment)
          .replaceAll('CLUSTER', anySystemIdentifier)
          .replaceAll('TIMELINE', name.slice(0, 8))
          .replaceAll('LOG', name.slice(8, 16))
          .replaceAll('NAME', name),
      )
      assert.deepEqual(files.toSorted(), [marker, ...expected].toSorted())
      const members = Object.keys(JSON.parse(await readFile(join(root, marker), 'utf8')))
      assert.deepEqual(
        members.toSorted(),
        table('member')
          .map(([member]) => member)
          .toSorted(),
      )
    })
  })
}

test('another key gives nothing back, and the line fails', async () => {
  await assert.rejects(say('encryption: age', kinds[1].repository.pathOf(big), 'other key'))
})

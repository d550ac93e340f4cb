import assert from 'node:assert/strict'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { createXXHash64, createXXHash128 } from 'hash-wasm'
import { xxhashModuleText } from '../scripts/build-xxhash.ts'
import * as usual from '../src/repository/codec/xxhash.ts'
import { xxhashes } from '../src/repository/codec/xxhash.ts'
import { xxhashModules } from '../src/repository/codec/xxhash-module.ts'
import { SeededRandom } from '../src/system/seeded-random.ts'
import { runCommand } from './support/archive-commands.ts'

const builds = { vectors: xxhashes(xxhashModules.vectors), plain: xxhashes(xxhashModules.plain) }

const block = 1024
const windowBytes = 64 * 1024
const chunkBytes = 512 * 1024
/** Where XXH3 goes another way, where stripe, block and window end, and some of the sizes that archiving has. */
const lengths = [
  ...Array.from({ length: 601 }, (_, length) => length),
  ...[1, 2, 3, 7, 16, 63, 64, 65, 128, 512, 1024].flatMap(blocks =>
    [-65, -64, -63, -33, -32, -31, -1, 0, 1, 31, 32, 33, 63, 64, 65].map(more => blocks * block + more),
  ),
  ...[windowBytes + 240, 3 * windowBytes + 241, 4 * 1024 * 1024, 5 * 1024 * 1024 + 77],
]
const longest = new SeededRandom(1).bytes(Math.max(...lengths))
const first = (length: number) => longest.subarray(0, length)

const otherXxh3 = await createXXHash128()
const otherXxh64 = await createXXHash64()
const expectedXxh3 = (bytes: Uint8Array) => otherXxh3.init().update(bytes).digest('hex')
const expectedXxh64 = (bytes: Uint8Array) => otherXxh64.init().update(bytes).digest('hex')

const directory = await mkdtemp(join(tmpdir(), 'pgarchivist-xxhash-'))
after(() => rm(directory, { recursive: true }))

/** In pieces of any length, of none too. */
function* split(bytes: Uint8Array, random: SeededRandom): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length; ) {
    const longestPiece = random.pick([0, 1, 4, 70, 300, 5_000, 70_000, 300_000])
    const piece = bytes.subarray(at, at + random.integer(0, longestPiece))
    yield piece
    at += piece.length
  }
}

const lowerHalf = (digest: string) => Number.parseInt(digest.slice(-8), 16)

test('the module in the sources is what the compiler makes of its source', async () => {
  const file = join(import.meta.dirname, '../src/repository/codec/xxhash-module.ts')
  const isSame = (await readFile(file, 'utf8')) === (await xxhashModuleText())
  assert.ok(isSame, 'run scripts/node scripts/build-xxhash.ts')
})

test('digests are what xxh128sum and xxh64sum print, whatever the length', async () => {
  const files = join(directory, 'lengths')
  await mkdir(files)
  for (const length of lengths) await writeFile(join(files, `${length}`), first(length))
  const paths = [...new Set(lengths)].map(length => join(files, `${length}`))
  for (const [command, name] of [
    ['xxh128sum', 'xxh3'],
    ['xxh64sum', 'xxh64'],
  ] as const) {
    const printed = (await runCommand(command, paths, Buffer.alloc(0))).toString().trimEnd().split('\n')
    assert.equal(printed.length, paths.length)
    for (const [build, hashes] of Object.entries(builds)) {
      for (const line of printed) {
        const [digest, path = ''] = line.split(/ +/)
        const length = Number(path.slice(files.length + 1))
        using hash = await hashes[name]()
        hash.update(first(length))
        assert.equal(hash.digest(), digest, `${name}, ${build}, ${length} bytes`)
      }
    }
  }
})

test('digests do not depend on how the bytes are split', async () => {
  for (const [build, { xxh3, xxh64 }] of Object.entries(builds)) {
    for (let seed = 0; seed < 300; seed++) {
      const random = new SeededRandom(seed)
      const bytes = first(random.integer(0, random.pick([40, 300, 3_000, 300_000, 1_500_000])))
      using ofXxh3 = await xxh3()
      using ofXxh64 = await xxh64()
      for (const piece of split(bytes, random)) ofXxh3.update(piece)
      for (const piece of split(bytes, random)) ofXxh64.update(piece)
      const run = `${build}, seed ${seed}, ${bytes.length} bytes`
      assert.equal(ofXxh3.digest(), expectedXxh3(bytes), run)
      assert.equal(ofXxh64.digest(), expectedXxh64(bytes), run)
    }
  }
})

test('the digests of a file are XXH3-128 of all of it and half the XXH64 of each chunk', async () => {
  for (const [build, { fileDigests }] of Object.entries(builds)) {
    for (let seed = 0; seed < 100; seed++) {
      const random = new SeededRandom(seed)
      const chunk = random.pick([1, 31, 32, 100, 241, 8_192, 70_001, chunkBytes])
      const file = first(random.integer(0, Math.min(longest.length, 20 * chunk)))
      const run = `${build}, seed ${seed}, ${file.length} bytes in chunks of ${chunk}`
      using digests = await fileDigests()
      for (let at = 0; at < file.length; at += chunk) {
        const bytes = file.subarray(at, at + chunk)
        assert.equal(digests.update(bytes), lowerHalf(expectedXxh64(bytes)), `${run}, at ${at}`)
      }
      assert.equal(digests.digest(), expectedXxh3(file), run)
    }
    // A file without bytes has one chunk, without bytes.
    using digests = await fileDigests()
    assert.equal(digests.update(new Uint8Array(0)), lowerHalf(expectedXxh64(new Uint8Array(0))))
    assert.equal(digests.digest(), expectedXxh3(new Uint8Array(0)), build)
  }
})

test('hashes of several files at once do not know of each other', async () => {
  const { xxh3, xxh64, fileDigests } = builds.vectors
  const random = new SeededRandom(2)
  const files = await Promise.all(
    Array.from({ length: 12 }, async (_, index) => {
      const bytes = longest.subarray(index, index + random.integer(0, 200_000))
      const pieces = [...split(bytes, random)]
      if (index % 3 === 0) return { hash: await fileDigests(), pieces, expected: expectedXxh3(bytes) }
      if (index % 3 === 1) return { hash: await xxh3(), pieces, expected: expectedXxh3(bytes) }
      return { hash: await xxh64(), pieces, expected: expectedXxh64(bytes) }
    }),
  )
  for (let unfinished = [...files]; unfinished.length > 0; ) {
    const { hash, pieces } = random.pick(unfinished)
    const piece = pieces.shift()
    if (piece) hash.update(piece)
    unfinished = unfinished.filter(each => each.pieces.length > 0)
  }
  for (const { hash, expected } of files) assert.equal(hash.digest(), expected)
  for (const { hash } of files) hash[Symbol.dispose]()
})

test('what was left unfinished or reset leaves nothing behind', async () => {
  const { xxh3, xxh64, fileDigests } = builds.vectors
  for (const length of [0, 3, 100, 1_000, 100_000]) {
    const bytes = longest.subarray(1, length + 1)
    for (const [create, expected] of [
      [xxh3, expectedXxh3(bytes)],
      [xxh64, expectedXxh64(bytes)],
    ] as const) {
      const abandoned = await create()
      abandoned.update(first(777))
      abandoned[Symbol.dispose]()
      const hash = await create()
      hash.update(bytes)
      assert.equal(hash.digest(), expected)
      hash.reset()
      hash.update(first(150))
      hash.reset()
      hash.update(bytes)
      assert.equal(hash.digest(), expected)
      hash[Symbol.dispose]()
    }
    const abandoned = await fileDigests()
    abandoned.update(first(777))
    abandoned[Symbol.dispose]()
    using digests = await fileDigests()
    assert.equal(digests.update(bytes), lowerHalf(expectedXxh64(bytes)))
    assert.equal(digests.digest(), expectedXxh3(bytes))
  }
})

test('a processor that cannot run the first module gets the next one', async () => {
  const { xxh3 } = xxhashes(Buffer.from('\0asm of another kind').toString('base64'), xxhashModules.plain)
  for (const create of [xxh3, usual.xxh3]) {
    using hash = await create()
    hash.update(first(1_000))
    assert.equal(hash.digest(), expectedXxh3(first(1_000)))
  }
})

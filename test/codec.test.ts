import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { Transform } from 'node:stream'
import { test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { constants, createZstdCompress, zstdCompressSync } from 'node:zlib'
import { type ByteSource, chunkBytes } from '../src/repository/codec/byte-source.ts'
import { ChunkReader } from '../src/repository/codec/chunk-reader.ts'
import { CodecError } from '../src/repository/codec/codec-error.ts'
import { checkStored, decode } from '../src/repository/codec/decode.ts'
import { encode } from '../src/repository/codec/encode.ts'
import { plaintextDigest } from '../src/repository/codec/plaintext-digest.ts'
import { type Compressor, FrameStream, frameBytes } from '../src/repository/codec/zstd-compressor.ts'
import { runCommand } from './support/archive-commands.ts'
import { BytesSink, BytesSource, likeWal, noise, restated, restored, stored } from './support/coded-bytes.ts'

const plain = { level: 1, recipients: [] }
const segmentBytes = 16 * 1024 * 1024

test('what was encoded is decoded, whatever its length', async () => {
  const lengths = [
    0,
    1,
    2,
    255,
    256,
    257,
    65_791,
    65_792,
    128 * 1024,
    chunkBytes - 1,
    chunkBytes,
    chunkBytes + 1,
  ]
  for (const length of [...lengths, 3 * chunkBytes, 5 * chunkBytes + 7]) {
    for (const plaintext of [Buffer.alloc(length), noise(length), likeWal(length)]) {
      const object = await stored(plaintext)
      assert.equal(object.plaintextLength, length)
      assert.equal(object.storedLength, object.bytes.length)
      assert.equal(object.storedDigest, createHash('sha256').update(object.bytes).digest('hex'))
      assert.ok((await restored(object)).equals(plaintext), `${length} bytes`)
      await checkStored(new BytesSource(object.bytes), object)
    }
  }
})

test('the zstd command gives the file back and finds size and checksum in the frame', async () => {
  for (const level of [1, 3, 19]) {
    const plaintext = likeWal(level === 1 ? segmentBytes : chunkBytes + 1)
    const { bytes } = await stored(plaintext, { level })
    assert.ok((await runCommand('zstd', ['-d', '-c'], bytes)).equals(plaintext), `level ${level}`)
    // Two of the three highest bits say how long the size is; without any the size is not there.
    const descriptor = bytes.readUInt8(4)
    assert.notEqual(descriptor & 0xc0, 0)
    assert.equal(descriptor & 0x04, 0x04)
  }
})

test('a higher level makes fewer bytes', async () => {
  const plaintext = likeWal(chunkBytes)
  assert.ok((await stored(plaintext, { level: 9 })).storedLength < (await stored(plaintext)).storedLength)
})

test('what the zstd command compressed is decoded, be it in one frame or in many', async () => {
  const plaintext = likeWal(5 * chunkBytes)
  for (const frameLength of [plaintext.length, chunkBytes, 100_000, 7_000]) {
    const frames: Buffer[] = []
    for (let at = 0; at < plaintext.length; at += frameLength) {
      const content = plaintext.subarray(at, at + frameLength)
      // Given as a file it would know the size of.
      frames.push(await runCommand('zstd', ['-3', '-c', '-q', `--stream-size=${content.length}`], content))
    }
    const bytes = Buffer.concat(frames)
    const storedDigest = createHash('sha256').update(bytes).digest('hex')
    const object = { ...(await stored(plaintext)), bytes, storedDigest, storedLength: bytes.length }
    assert.ok((await restored(object)).equals(plaintext), `${frames.length} frames`)

    for (const lacking of frames.length === 1 ? [] : [0, 1, frames.length - 1]) {
      const fewer = restated(object, Buffer.concat(frames.toSpliced(lacking, 1)))
      await assert.rejects(restored(fewer), { kind: 'altered' }, `without frame ${lacking}`)
    }
    for (const more of [frames.at(-1) ?? bytes, Buffer.from('not a frame')]) {
      await assert.rejects(restored(restated(object, Buffer.concat([bytes, more]))), { kind: 'altered' })
    }
  }
})

test('the digest of plaintext is what xxh128sum prints', async () => {
  for (const length of [0, 1, 16, 17, 240, 241, 100_000, chunkBytes, chunkBytes + 1, 3 * chunkBytes]) {
    const plaintext = noise(length)
    const printed = (await runCommand('xxh128sum', ['-'], plaintext)).toString().split(' ')[0]
    assert.deepEqual(await plaintextDigest(new BytesSource(plaintext)), { digest: printed, length })
    assert.equal((await stored(plaintext)).plaintextDigest, printed)
  }
})

test('several files are encoded and decoded at once', async () => {
  const plaintexts = Array.from({ length: 8 }, (_, index) => noise(2 * chunkBytes + index, index))
  const objects = await Promise.all(plaintexts.map(plaintext => stored(plaintext)))
  const files = await Promise.all(objects.map(object => restored(object)))
  for (const [index, file] of files.entries()) assert.ok(file.equals(plaintexts[index] ?? file.subarray(1)))
})

test('a sink that is slow holds back the source', async () => {
  const plaintext = noise(24 * chunkBytes)
  const source = new BytesSource(plaintext)
  let storedBytes = 0
  let aheadMax = 0
  await encode(source, { plaintextLength: plaintext.length, ...plain }, async bytes => {
    for (let turn = 0; turn < 50; turn++) await nextTurn()
    aheadMax = Math.max(aheadMax, source.position - storedBytes)
    storedBytes += bytes.length
  })
  assert.ok(aheadMax <= 6 * chunkBytes, `${aheadMax} bytes were read that nobody had taken`)

  const object = await stored(plaintext)
  const storedSource = new BytesSource(object.bytes)
  let taken = 0
  aheadMax = 0
  await decode(storedSource, { ...object, isEncrypted: false, identities: [] }, async bytes => {
    for (let turn = 0; turn < 50; turn++) await nextTurn()
    aheadMax = Math.max(aheadMax, storedSource.position - taken)
    taken += bytes.length
  })
  assert.ok(aheadMax <= 6 * chunkBytes, `${aheadMax} stored bytes were read that nobody had taken`)
})

test('a source that is shorter or longer than it was said to be is refused, and read no further than that', async () => {
  for (const length of [1, 1_000, chunkBytes, chunkBytes + 1, 4 * chunkBytes]) {
    for (const plaintextLength of [length - 1, length + 1, length + 3 * chunkBytes]) {
      const source = new BytesSource(noise(length))
      const message =
        plaintextLength < length
          ? `the file has more than the ${plaintextLength} bytes that it had`
          : `the file ended after ${length} of ${plaintextLength} bytes`
      await assert.rejects(encode(source, { ...plain, plaintextLength }, new BytesSink().take), {
        name: 'CodecError',
        kind: 'source changed',
        message,
      })
      assert.ok(source.position <= plaintextLength + 1)
    }
  }
})

/** What comes out is what a function makes of the right frame, perhaps of other content. */
function compressorThat(spoils: (frame: Buffer) => Buffer, content?: Buffer): () => Compressor {
  const params = { [constants.ZSTD_c_checksumFlag]: 1 }
  return () => ({
    compress: async bytes => {
      await nextTurn()
      return [spoils(zstdCompressSync(content ?? bytes, { params }))]
    },
    [Symbol.dispose]: () => undefined,
  })
}

test('a frame that is not whole, or not of the bytes that were read, is not success', async () => {
  const plaintext = likeWal(400_000)
  const options = { plaintextLength: plaintext.length, ...plain }
  const encodeWith = async (compressor: () => Compressor) => {
    const sink = new BytesSink()
    await encode(new BytesSource(plaintext), options, sink.take, compressor)
    return sink.bytes()
  }
  // The double by itself is no reason to fail.
  const frame = await encodeWith(compressorThat(right => right))
  assert.ok(frame.length > 100_000)

  const unsound = (message: string) => ({ name: 'CodecError', kind: 'unsound output', message })
  for (let kept = 0; kept < frame.length; kept += kept < 40 || kept > frame.length - 40 ? 1 : 997) {
    await assert.rejects(
      encodeWith(compressorThat(right => right.subarray(0, kept))),
      unsound('the zstd frame is not complete'),
      `${kept} bytes`,
    )
  }
  const beyond = compressorThat(right => Buffer.concat([right, Buffer.alloc(1)]))
  await assert.rejects(encodeWith(beyond), unsound('there are bytes after the zstd frame'))
  const twice = compressorThat(right => Buffer.concat([right, right]))
  await assert.rejects(encodeWith(twice), unsound('there are bytes after the zstd frame'))

  const different = unsound('the zstd frame is not one of the bytes that were read')
  const altered = Buffer.from(plaintext)
  altered.writeUInt8(altered.readUInt8(300_000) ^ 1, 300_000)
  const same = (right: Buffer) => right
  await assert.rejects(encodeWith(compressorThat(same, altered)), different)
  await assert.rejects(encodeWith(compressorThat(same, plaintext.subarray(1))), different)
  await assert.rejects(encodeWith(compressorThat(same, Buffer.alloc(0))), different)

  const mislabelled = compressorThat(right => {
    const frame = Buffer.from(right)
    // Behind magic and descriptor; what is compressed at one go has no window.
    assert.equal(frame.readUInt32LE(5), plaintext.length)
    frame.writeUInt32LE(plaintext.length + 1, 5)
    return frame
  })
  await assert.rejects(encodeWith(mislabelled), different)

  const unmarked = compressorThat(() => zstdCompressSync(plaintext))
  await assert.rejects(encodeWith(unmarked), unsound('the zstd frame has no checksum'))
  const unsized = compressorThat(() =>
    zstdCompressSync(plaintext, {
      params: { [constants.ZSTD_c_contentSizeFlag]: 0, [constants.ZSTD_c_checksumFlag]: 1 },
    }),
  )
  await assert.rejects(encodeWith(unsized), unsound('the zstd frame has no content size'))
})

test('a compressor that fails or ends early is not success', async () => {
  const plaintext = noise(3 * frameBytes(1))
  const encodeWith = async (stream: Transform) => {
    const frames = new FrameStream(stream)
    const compressor = {
      compress: (bytes: Uint8Array) => frames.compress(bytes),
      [Symbol.dispose]: () => undefined,
    }
    const options = { plaintextLength: plaintext.length, ...plain }
    const encoding = encode(new BytesSource(plaintext), options, new BytesSink().take, () => compressor)
    return await encoding.finally(() => assert.equal(frames.isSound, !stream.destroyed))
  }
  const failing = new Transform({ transform: (_bytes, _encoding, done) => done(new Error('out of memory')) })
  const unsound = { name: 'CodecError', kind: 'unsound output' }
  await assert.rejects(encodeWith(failing), { ...unsound, message: 'zstd: out of memory' })

  const closing: Transform = new Transform({ transform: () => closing.destroy() })
  await assert.rejects(encodeWith(closing), { ...unsound, message: 'zstd: the stream was closed' })

  const silent = new Transform({ transform: (_bytes, _encoding, done) => done() })
  await assert.rejects(encodeWith(silent), { ...unsound, message: 'the zstd frame is not complete' })
})

test('a frame that just fits into what zlib has for it is stored without the one that zlib makes after it', async () => {
  const params = { [constants.ZSTD_c_contentSizeFlag]: 1, [constants.ZSTD_c_checksumFlag]: 1 }
  const frames = new FrameStream(createZstdCompress({ chunkSize: 64, flush: constants.ZSTD_e_end, params }))
  const compressor = {
    compress: (bytes: Uint8Array) => frames.compress(bytes),
    [Symbol.dispose]: () => undefined,
  }
  for (let length = 0; length < 400; length++) {
    const plaintext = noise(length)
    const options = { plaintextLength: length, ...plain }
    const sink = new BytesSink()
    const encoded = await encode(new BytesSource(plaintext), options, sink.take, () => compressor)
    const object = { ...encoded, bytes: sink.bytes() }
    assert.ok((await restored(object)).equals(plaintext), `${length} bytes`)
  }
  frames.close()
})

test('compressors are used again, and not for another level', async () => {
  const plaintext = likeWal(2 * frameBytes(9) + 1)
  const lengths = new Map<number, number>()
  for (const level of [1, 9, 1, 3, 9, 1]) {
    const files = await Promise.all(Array.from({ length: 4 }, () => stored(plaintext, { level })))
    for (const file of files) {
      assert.ok((await restored(file)).equals(plaintext))
      assert.equal(file.storedLength, lengths.get(level) ?? file.storedLength)
      lengths.set(level, file.storedLength)
    }
  }
  assert.equal(new Set(lengths.values()).size, 3)
})

test('errors of source and sink are passed on as they are, and neither is called again', async () => {
  const plaintext = noise(8 * chunkBytes)
  const object = await stored(plaintext)
  const trouble = new Error('input/output error')
  const coders = {
    encode: (source: ByteSource, take: BytesSink['take']) =>
      encode(source, { plaintextLength: plaintext.length, ...plain }, take),
    decode: (source: ByteSource, take: BytesSink['take']) =>
      decode(source, { ...object, isEncrypted: false, identities: [] }, take),
  }
  for (const [name, coder] of Object.entries(coders)) {
    const input = name === 'encode' ? plaintext : object.bytes
    for (const failingCall of [1, 2, 5]) {
      const sink = new BytesSink()
      const source = new BytesSource(input)
      const failingSource: ByteSource = {
        read: async buffer => {
          if (source.reads + 1 >= failingCall) {
            source.reads++
            throw trouble
          }
          return await source.read(buffer)
        },
      }
      await assert.rejects(coder(failingSource, sink.take), error => error === trouble)
      const calls = [source.reads, sink.calls]
      for (let turn = 0; turn < 50; turn++) await nextTurn()
      assert.deepEqual([source.reads, sink.calls], calls)
      assert.equal(source.reads, failingCall)
    }
    for (const failingCall of [1, 2, 5]) {
      const source = new BytesSource(input)
      let calls = 0
      const failingTake = async () => {
        if (++calls >= failingCall) throw trouble
      }
      await assert.rejects(coder(source, failingTake), error => error === trouble)
      const reads = source.reads
      assert.ok(failingCall > 2 || source.position < input.length)
      for (let turn = 0; turn < 50; turn++) await nextTurn()
      assert.deepEqual([calls, source.reads], [failingCall, reads])
    }
  }
})

test('a source that fails is not taken for one that is damaged', async () => {
  const trouble = new Error('input/output error')
  const object = await stored(noise(3 * chunkBytes))
  const options = { ...object, isEncrypted: false, identities: [] }
  const source: ByteSource & { reads: number } = {
    reads: 0,
    read: async buffer => {
      if (++source.reads > 1) throw trouble
      return buffer.fill(0).length
    },
  }
  await assert.rejects(decode(source, options, new BytesSink().take), error => error === trouble)
  assert.equal(source.reads, 2)

  // It stays failed, because nobody knows where it would go on.
  let reads = 0
  const reader = new ChunkReader(
    { read: () => (++reads === 1 ? Promise.reject(trouble) : Promise.resolve(0)) },
    10,
    { update: () => undefined },
    undefined,
  )
  for (let time = 0; time < 2; time++) await assert.rejects(reader.next(), error => error === trouble)
  assert.equal(reads, 1)
})

test('both can be aborted, before and in the middle', async () => {
  const plaintext = noise(8 * chunkBytes)
  const object = await stored(plaintext)
  const coders = [
    (signal: AbortSignal, source: BytesSource, take: BytesSink['take']) =>
      encode(source, { plaintextLength: plaintext.length, ...plain, signal }, take),
    (signal: AbortSignal, source: BytesSource, take: BytesSink['take']) =>
      decode(source, { ...object, isEncrypted: false, identities: [], signal }, take),
  ]
  for (const [index, coder] of coders.entries()) {
    const input = index === 0 ? plaintext : object.bytes
    const reason = new Error('the attempt has timed out')
    const source = new BytesSource(input)
    await assert.rejects(
      coder(AbortSignal.abort(reason), source, new BytesSink().take),
      error => error === reason,
    )
    assert.equal(source.reads, 0)

    const controller = new AbortController()
    let calls = 0
    const take = async () => {
      if (++calls === 2) controller.abort(reason)
    }
    await assert.rejects(coder(controller.signal, source, take), error => error === reason)
    const { reads } = source
    for (let turn = 0; turn < 50; turn++) await nextTurn()
    assert.deepEqual([calls, source.reads], [2, reads])
    assert.ok(source.position < input.length)
  }
})

test('a small object that would grow beyond its file is refused before it has grown', async () => {
  const bomb = await stored(Buffer.alloc(64 * chunkBytes))
  const sink = new BytesSink()
  const options = { ...bomb, plaintextLength: 1_000, isEncrypted: false, identities: [] }
  await assert.rejects(decode(new BytesSource(bomb.bytes), options, sink.take), {
    name: 'CodecError',
    kind: 'altered',
    message: 'the zstd frames do not hold the 1000 bytes of the file',
  })
  assert.equal(sink.length, 0)

  // The same as one frame, with a header that lies: so much takes four bytes of size, after magic, descriptor and window.
  const zeros = Buffer.alloc(64 * chunkBytes)
  const params = { [constants.ZSTD_c_checksumFlag]: 1 }
  const liar = zstdCompressSync(zeros, { pledgedSrcSize: zeros.length, params })
  assert.equal(liar.readUInt32LE(6), zeros.length)
  liar.writeUInt32LE(1_000, 6)
  const storedDigest = createHash('sha256').update(liar).digest('hex')
  const told = { ...options, storedDigest, storedLength: liar.length }
  await assert.rejects(decode(new BytesSource(liar), told, sink.take), {
    name: 'CodecError',
    kind: 'altered',
  })
  assert.ok(sink.length <= 1_000)
})

test('frames that hold nothing are refused, of which any number would hold a file', async () => {
  const emptyFrame = (await stored(Buffer.alloc(0))).bytes
  for (const [plaintext, count] of [
    [Buffer.alloc(0), 2],
    [noise(1_000), 1],
  ] as const) {
    const object = await stored(plaintext)
    const empty = Array.from({ length: count }, () => emptyFrame)
    for (const pieces of [
      [...empty, object.bytes],
      [object.bytes, ...empty],
    ]) {
      const message = `the zstd frames do not hold the ${plaintext.length} bytes of the file`
      await assert.rejects(restored(restated(object, Buffer.concat(pieces))), { kind: 'altered', message })
    }
  }
})

test('a frame that needs a large window is refused', async () => {
  const { plaintextDigest: digest } = await stored(Buffer.alloc(0))
  // One of 1 GiB, of which only a header is there.
  const bytes = Buffer.from('28b52ffd84a0000000400000000000', 'hex')
  const storedDigest = createHash('sha256').update(bytes).digest('hex')
  const options = {
    plaintextDigest: digest,
    storedDigest,
    storedLength: bytes.length,
  }
  const decodeAs = (plaintextLength: number) =>
    decode(
      new BytesSource(bytes),
      { ...options, plaintextLength, isEncrypted: false, identities: [] },
      new BytesSink().take,
    )
  await assert.rejects(decodeAs(0x40000000), {
    name: 'CodecError',
    kind: 'altered',
    message: 'zstd: Frame requires too much memory for decoding',
  })
  // zstd is not even asked if that is more than the file has.
  await assert.rejects(decodeAs(0x3fffffff), {
    name: 'CodecError',
    kind: 'altered',
    message: 'the zstd frames do not hold the 1073741823 bytes of the file',
  })
})

test('a CodecError says in its kind what it is about', () => {
  const error = new CodecError('truncated', 'it ends', { cause: 1 })
  assert.deepEqual(
    [error.name, error.kind, error.message, error.cause],
    ['CodecError', 'truncated', 'it ends', 1],
  )
})

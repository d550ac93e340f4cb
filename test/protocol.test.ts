import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { promisify } from 'node:util'
import {
  encodeFrame,
  type Field,
  FrameReader,
  FrameSplitter,
  frameBytesMax,
  ProtocolError,
} from '../src/bridge/frame.ts'
import { decodeFromServer, encodeToServer, type FromServer, type ToServer } from '../src/bridge/messages.ts'
import { sourceDirectory } from '../src/cli/install/compile.ts'
import goldenFrames from './protocol/golden-frames.json' with { type: 'json' }
import { temporaryDirectory } from './support/unprivileged.ts'

const run = promisify(execFile)

interface GoldenFrame {
  name: string
  type: string
  fields: Field[]
  bytes: Buffer
}

const golden = goldenFrames.map(frame => ({ ...frame, bytes: Buffer.from(frame.bytes, 'hex') }))
const fromServer: (GoldenFrame & { message: FromServer })[] = golden
  .filter(frame => frame.from === 'C')
  .map(frame => ({ ...frame, message: frame.message as FromServer }))
const toServer: (GoldenFrame & { message: ToServer })[] = golden
  .filter(frame => frame.from === 'Node')
  .map(frame => ({ ...frame, message: frame.message as ToServer }))

function split(...chunks: Uint8Array[]): { type: string; payload: Buffer }[] {
  const splitter = new FrameSplitter()
  return chunks.flatMap(chunk => [...splitter.push(chunk)])
}

function received(bytes: Uint8Array): FromServer[] {
  return split(bytes).map(({ type, payload }) => decodeFromServer(type, payload))
}

/** The same payload under another length. */
function withLength(frame: Buffer, bytes: number): Buffer {
  const other = Buffer.alloc(bytes)
  frame.copy(other)
  other.writeInt32BE(bytes - 1, 1)
  return other
}

function header(type: string, length: number): Buffer {
  const bytes = Buffer.from(`${type}0000`, 'latin1')
  bytes.writeUInt32BE(length, 1)
  return bytes
}

suite('the golden frames', () => {
  test('are of every type, and name files of all four kinds', () => {
    assert.equal([...new Set(golden.map(frame => frame.type))].toSorted().join(''), 'ACHPQSacdlprv')
    const files = fromServer.flatMap(({ message }) => (message.type === 'archive' ? [message.file] : []))
    for (const kind of [/^[0-9A-F]{24}$/, /^[0-9A-F]{8}\.history$/, /\.[0-9A-F]{8}\.backup$/, /\.partial$/]) {
      assert.ok(files.some(file => kind.test(file)))
    }
  })

  for (const { name, type, fields, bytes } of golden) {
    test(`are bytes of these fields: ${name}`, () => {
      assert.deepEqual(encodeFrame(type, fields), bytes)
    })
  }

  for (const { name, message, bytes } of fromServer) {
    test(`are read by the Node end: ${name}`, () => {
      assert.deepEqual(received(bytes), [message])
    })
  }

  for (const { name, message, bytes } of toServer) {
    test(`are written by the Node end: ${name}`, () => {
      assert.deepEqual(encodeToServer(message), bytes)
    })
  }

  // gcc is what builds the library, so it is here; its sanitizers come with it.
  test('are written and read by the C end, which refuses them when they are spoiled', async () => {
    await using directory = await temporaryDirectory()
    const program = join(directory.path, 'golden-frames')
    const sources = [join(import.meta.dirname, 'protocol/golden-frames.c'), join(sourceDirectory, 'frame.c')]
    const checks = [
      '-fsanitize=address,undefined',
      '-fno-sanitize-recover=all',
      '-Wall',
      '-Wextra',
      '-Werror',
    ]
    await run('gcc', ['-g', '-O1', ...checks, `-I${sourceDirectory}`, '-o', program, ...sources])
    const lines = golden.flatMap(({ type, fields, bytes }) => [
      ...fields.map(fieldLine),
      `frame ${type} ${bytes.toString('hex')}`,
    ])
    // The leak checker needs to trace its own process, which containers forbid.
    const env = { ...process.env, ASAN_OPTIONS: 'detect_leaks=0' }
    const child = spawn(program, [], { env, stdio: ['pipe', 'pipe', 'pipe'], timeout: 60_000 })
    const ended = once(child, 'close')
    const texts = Promise.all([child.stdout, child.stderr].map(each => each.setEncoding('utf8').toArray()))
    child.stdin.end(`${lines.join('\n')}\n`)
    const [stdout = [], stderr = []] = await texts
    assert.equal(stderr.join(''), '')
    assert.equal(stdout.join(''), `${golden.length} frames\n`)
    assert.deepEqual(await ended, [0, null])
  })
})

function fieldLine(field: Field): string {
  if (typeof field === 'number') return `int32 ${field}`
  if (typeof field === 'boolean') return `bool ${field ? 1 : 0}`
  return `string ${Buffer.from(field).toString('hex')}`
}

suite('the Node end reads', () => {
  test('the same frames however the stream is cut', () => {
    const stream = Buffer.concat(golden.map(frame => frame.bytes))
    const whole = split(stream)
    assert.equal(whole.length, golden.length)
    for (let at = 1; at < stream.length; at += 7) {
      assert.deepEqual(split(stream.subarray(0, at), stream.subarray(at)), whole)
    }
    assert.deepEqual(split(...Array.from(stream, byte => Uint8Array.of(byte))), whole)
  })

  test('nothing of a frame that has not come to its end', () => {
    for (const { bytes } of golden) {
      for (let end = 0; end < bytes.length; end++) assert.deepEqual(split(bytes.subarray(0, end)), [])
    }
  })

  test('frames up to the longest', () => {
    const text = 'x'.repeat(frameBytesMax - 5 - 4 - 4 - 1 - 1)
    const longest = encodeFrame('A', [1, 1_000, text, ''])
    assert.equal(longest.length, frameBytesMax)
    assert.equal(split(longest)[0]?.payload.length, frameBytesMax - 5)
    assert.throws(() => encodeFrame('A', [1, 1_000, `${text}x`, '']), ProtocolError)
  })

  test('no byte beyond 0 in a string, which would end it on the other end', () => {
    assert.deepEqual(encodeFrame('v', ['a\0b\0']), encodeFrame('v', ['ab']))
  })
})

suite('the Node end refuses', () => {
  for (const length of [0, 1, 2, 3, frameBytesMax, 0x7fffffff, 0x80000000, 0xffffffff]) {
    test(`a length of ${length}, before anything of the frame has come`, () => {
      assert.throws(
        () => split(header('A', length)),
        new ProtocolError(`a frame of ${length} bytes is not allowed`),
      )
    })
  }

  test('a frame that is shorter than its fields', () => {
    for (const { name, bytes } of fromServer) {
      for (let end = 5; end < bytes.length; end++) {
        assert.throws(() => received(withLength(bytes, end)), ProtocolError, `${name}, ${end} bytes`)
      }
    }
  })

  test('a frame that is longer than its fields', () => {
    for (const { name, bytes } of fromServer) {
      const longer = withLength(bytes, bytes.length + 1)
      assert.throws(() => received(longer), new ProtocolError('a frame is longer than its fields'), name)
    }
  })

  test('every type that C does not send', () => {
    for (let code = 0; code < 256; code++) {
      const type = String.fromCharCode(code)
      if ('HSCAPQ'.includes(type)) continue
      assert.throws(
        () => decodeFromServer(type, Buffer.alloc(0)),
        /^ProtocolError: frames of type ".*" do not exist$/,
      )
    }
  })

  test('a string without its end', () => {
    assert.throws(
      () => new FrameReader(Buffer.from('abc')).string(),
      new ProtocolError('a frame ends within a string'),
    )
  })

  test('another version, and says what to do', () => {
    const [hello] = fromServer
    assert.ok(hello)
    const bytes = Buffer.from(hello.bytes)
    bytes.writeInt32BE(2, 5)
    assert.throws(
      () => received(bytes),
      new ProtocolError(
        'the library in the server speaks version 2 of the protocol, this is 1: run "pgarchivist install"',
      ),
    )
  })

  for (const count of [-1, 10_001, 0x7fffffff, -0x80000000]) {
    test(`${count} settings`, () => {
      assert.throws(
        () => received(encodeFrame('S', [count, '', 4, 512])),
        new ProtocolError(`${count} settings are not possible`),
      )
    })
  }

  const path = '/data/pg_wal/000000010000000000000001'
  const file = '000000010000000000000001'
  const impossible: Record<string, Buffer> = {
    'request 0': encodeFrame('C', [0]),
    'a negative request': encodeFrame('C', [-1]),
    'request 0 to archive': encodeFrame('A', [0, 1_000, file, path]),
    'a negative time to archive in': encodeFrame('A', [1, -1, file, path]),
    'a file without a name': encodeFrame('A', [1, 1_000, '', '/data/pg_wal/']),
    'a file name that leads elsewhere': encodeFrame('A', [1, 1_000, '../postgresql.conf', path]),
    'a path that is not absolute': encodeFrame('A', [1, 1_000, file, `pg_wal/${file}`]),
    'a negative time to quit in': encodeFrame('Q', [-1]),
    'no file ahead': encodeFrame('S', [0, '', 0, 512]),
    'a negative memory limit': encodeFrame('S', [0, '', 4, -1]),
    'a segment size that is no power of two': encodeFrame('H', [
      1,
      180_000,
      3_000_000,
      1,
      '1',
      '/',
      '',
      'm',
      0,
      '',
      4,
      0,
    ]),
    'a server before 15': encodeFrame('H', [1, 140_000, 16_777_216, 1, '1', '/', '', 'm', 0, '', 4, 0]),
  }
  for (const [what, bytes] of Object.entries(impossible)) {
    test(what, () => {
      assert.throws(() => received(bytes), ProtocolError)
    })
  }
})

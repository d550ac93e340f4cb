/**
 * Stands in for the module's process and breaks the protocol in the way that a file names, if there is one. It shares no code with the
 * honest one. Started as: liar.ts DIRECTORY, where DIRECTORY/scenario may hold the name of the lie; what it does is
 * told in DIRECTORY/deeds, a line each.
 */
import { appendFileSync, existsSync, readFileSync, readSync, writeSync } from 'node:fs'
import { join } from 'node:path'

const channel = 3
const directory = process.argv[2] ?? '.'
const choice = join(directory, 'scenario')
const scenario = existsSync(choice) ? readFileSync(choice, 'utf8').trim() : 'honest'

function tell(deed: string): void {
  appendFileSync(join(directory, 'deeds'), `${scenario} ${process.pid} ${deed}\n`)
}

// Fields

const int32 = (value: number) => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value >>> 0)
  return bytes
}
const byte = (value: number) => Buffer.from([value])
const string = (value: string | Buffer) => Buffer.concat([Buffer.from(value), byte(0)])

function frame(type: string, ...fields: Buffer[]): Buffer {
  const payload = Buffer.concat(fields)
  return Buffer.concat([Buffer.from(type, 'latin1'), int32(payload.length + 4), payload])
}

const header = (type: string, length: number) => Buffer.concat([Buffer.from(type), int32(length)])
const ready = (version = 1) => frame('r', int32(version))
const log = (
  level: string,
  message: string | Buffer,
  sqlstate = '',
  detail: string | Buffer = '',
  hint = '',
) => frame('l', string(level), string(sqlstate), string(message), string(detail), string(hint))
const checked = (request: number, configured = 1, detail = '') =>
  frame('c', int32(request), byte(configured), string(detail))
const archived = (request: number, file: string, value = 1) =>
  frame('a', int32(request), byte(value), string(file))

interface Declaration {
  kind?: string
  name?: string
  context?: string
  flags?: string
  boot?: string
  min?: string
  max?: string
  options?: string[]
  count?: number
}
const declare = (given: Declaration) => {
  const { kind = 'int', name = 'lie.x', context = 'PGC_SIGHUP', flags = '' } = given
  const { boot = '1', min = '0', max = '9', options = [], count = options.length } = given
  const texts = [kind, name, 'A lie.', '', context, flags, boot, min, max]
  return frame('d', ...texts.map(string), int32(count), ...options.map(string))
}

// The channel, which blocks.

function write(...frames: Buffer[]): void {
  const bytes = Buffer.concat(frames)
  for (let sent = 0; sent < bytes.length; ) sent += writeSync(channel, bytes, sent)
}

let pending = Buffer.alloc(0)
function read(): { type: string; payload: Buffer } {
  for (;;) {
    if (pending.length >= 5) {
      const end = pending.readUInt32BE(1) + 1
      if (pending.length >= end) {
        const whole = { type: String.fromCharCode(pending[0] ?? 0), payload: pending.subarray(5, end) }
        pending = pending.subarray(end)
        return whole
      }
    }
    const bytes = Buffer.alloc(65_536)
    const count = readSync(channel, bytes)
    if (count === 0) process.exit(0)
    pending = Buffer.concat([pending, bytes.subarray(0, count)])
  }
}

function readUntil(type: string): Buffer {
  for (;;) {
    const next = read()
    if (next.type === type) return next.payload
  }
}

function fileOf(payload: Buffer): string {
  return payload.toString('utf8', 8, payload.indexOf(0, 8))
}

// A process that is alive and does nothing more, not even read.
function pause(ms?: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)
}

/** Keeps to the protocol. */
function honestly(): void {
  for (;;) {
    const { type, payload } = read()
    if (type === 'C') write(checked(payload.readInt32BE(0)))
    if (type === 'A') write(archived(payload.readInt32BE(0), fileOf(payload)))
    if (type === 'P') write(frame('p'))
    if (type === 'Q') process.exit(0)
  }
}

function start(...said: Buffer[]): void {
  readUntil('H')
  write(...said, ready())
}

/** Is honest until it is asked to archive a file, and says something else then. */
function onArchive(lie: (request: number, file: string) => Buffer[]): void {
  start()
  for (;;) {
    const { type, payload } = read()
    if (type === 'C') write(checked(payload.readInt32BE(0)))
    if (type !== 'A') continue
    tell('lies')
    write(...lie(payload.readInt32BE(0), fileOf(payload)))
  }
}

const flags32k = `${'GUC_UNIT_MS '.repeat(2_700)}GUC_LIST_QUOTE`
const nonsense: Declaration[] = [
  { name: '' },
  { name: 'lie.with spaces' },
  { name: 'no_prefix_at_all' },
  { name: 'work_mem' },
  { name: 'archive_library', kind: 'string', boot: '' },
  { name: 'pgarchivist.module', kind: 'string', boot: 'other' },
  { name: `lie.${'x'.repeat(100_000)}` },
  { name: 'lie.ümlaut\n"\x1b[31m' },
  { name: 'lie.reversed', min: '9', max: '0' },
  { name: 'lie.beyond', boot: '1e308', min: '-1e308', max: '1e308' },
  { name: 'lie.long', boot: '99999999999999999999', min: '0', max: '99999999999999999999' },
  { name: 'lie.nan', boot: 'nan', min: 'nan', max: 'nan' },
  { name: 'lie.real_nan', kind: 'real', boot: 'nan', min: 'inf', max: '-inf' },
  { name: 'lie.outside', boot: '11' },
  { name: 'lie.text', boot: 'eleven', min: 'one', max: '%s%n' },
  { name: 'lie.enum', kind: 'enum', boot: 'c', options: ['a', 'b'] },
  { name: 'lie.twice', kind: 'enum', boot: 'a', options: ['a', 'a', ''] },
  { name: 'lie.bool', kind: 'bool', boot: 'maybe' },
  { name: 'lie.kind', kind: 'float' },
  { name: 'lie.context', context: 'PGC_POSTMASTER' },
  { name: 'lie.contexts', context: 'PGC_WHATEVER' },
  { name: 'lie.flags', flags: flags32k },
]
const text200k = `%s%n%n%s%m${'%d'.repeat(100_000)}`
const notUtf8 = Buffer.from([0xff, 0xfe, 0xc3, 0x28, 0xf0, 0x80, 0x80, 0x1b, 0x07, 0x0a])

const scenarios: Record<string, () => void> = {
  honest: () => {
    start()
    honestly()
  },

  // Instead of the handshake
  'speaks another version': () => write(ready(2)),
  'sends garbage': () => write(Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n')),
  'sends zeros': () => write(Buffer.alloc(4_096)),
  'sends a length of 0': () => write(header('r', 0), int32(1)),
  'sends a length of 1': () => write(header('r', 1), int32(1)),
  'sends a length of 2': () => write(header('r', 2), int32(1)),
  'sends a length of 3': () => write(header('r', 3), int32(1)),
  'sends a length one beyond the limit': () => write(header('l', 262_144)),
  'sends a length of 2147483647': () => write(header('l', 0x7fffffff)),
  'sends a length of 4294967295': () => write(header('l', 0xffffffff)),
  'sends an unknown type': () => write(frame('x')),
  'sends a byte too many': () => write(frame('r', int32(1), byte(0))),
  'sends a number that ends early': () => write(frame('r', byte(0), byte(0))),
  'sends a string without its end': () => write(frame('v', Buffer.from('lie'))),
  'sends the longest frame of one string without its end': () =>
    write(frame('v', Buffer.alloc(262_139, 'a'))),
  'sends half a frame and is silent': () => write(ready().subarray(0, 5)),
  'sends half a frame and ends': () => {
    write(ready().subarray(0, 5))
    process.exit(1)
  },
  'is silent': () => {},
  'is ready twice': () => start(ready()),
  'answers before it is asked': () => write(checked(1)),
  'answers request 0 before it is asked': () => write(checked(0)),
  'archives before it is asked': () => write(archived(1, '000000010000000000000001')),
  'does not read': () => {
    write(log('LOG', 'does not read'))
    pause()
  },

  // About settings
  'declares 10,000 settings': () => {
    write(...Array.from({ length: 10_000 }, (_, i) => declare({ name: `lie.x${i}` })), ready())
    honestly()
  },
  'declares nonsense': () => {
    for (const each of nonsense) write(declare(each))
    tell('declared')
    start()
    honestly()
  },
  'declares one setting in two ways': () => {
    write(declare({ name: 'lie.changing', max: '5' }), declare({ name: 'lie.CHANGING', max: '6' }), ready())
    tell('declared')
    honestly()
  },
  'declares an enum without options': () => write(declare({ kind: 'enum', name: 'lie.none' })),
  'declares fewer options than it counts': () => write(declare({ kind: 'enum', options: ['a'], count: 2 })),
  'declares a negative number of options': () => write(declare({ kind: 'enum', count: -1 })),
  'declares 2147483647 options': () => write(declare({ kind: 'enum', options: ['a'], count: 0x7fffffff })),
  'declares options of a number': () => write(declare({ kind: 'int', options: ['a'] })),
  'reserves no prefix': () => write(frame('v', string(''))),
  'reserves prefixes of others': () => {
    for (const prefix of ['pgarchivist', 'log', 'plpgsql', '%s%n', 'a b', 'x'.repeat(100_000)])
      write(frame('v', string(prefix)))
    tell('reserved')
    start()
    honestly()
  },
  'reserves 200,000 prefixes': () => {
    for (let i = 0; i < 200_000; i += 1_000)
      write(...Array.from({ length: 1_000 }, (_, j) => frame('v', string(`lie${i + j}`))))
    tell('reserved')
    start()
    honestly()
  },

  // In the log
  'logs with unknown level': () => write(log('ALARM', 'not a level')),
  'logs without its last field': () =>
    write(frame('l', string('LOG'), string(''), string('x'), string('')), ready()),
  'logs absurdities': () => {
    for (const level of ['PANIC', 'FATAL', 'ERROR', 'WARNING', 'NOTICE', 'INFO', 'LOG', 'DEBUG1', 'DEBUG5']) {
      write(log(level, `lie at ${level}: %s%n%s%n`, '', '%s%n', '%m%n'))
      write(
        log(level, text200k, '57P01'),
        log(level, notUtf8, 'not a state', notUtf8),
        log(level, '', '00000'),
      )
    }
    tell('logged')
    start()
    honestly()
  },
  'logs PANIC while it is asked to quit': () => {
    start()
    for (;;) {
      const { type, payload } = read()
      if (type === 'C') write(checked(payload.readInt32BE(0)))
      if (type === 'A') write(archived(payload.readInt32BE(0), fileOf(payload)))
      if (type !== 'Q') continue
      write(log('PANIC', 'lie at quit'))
      pause()
    }
  },
  'logs 100,000 times': () => {
    for (let i = 0; i < 100_000; i += 100)
      write(...Array.from({ length: 100 }, (_, j) => log('LOG', `lie number ${i + j}`)))
    tell('logged')
    start()
    honestly()
  },
  'logs without end before it is ready': () => {
    const many = Array.from({ length: 1_000 }, () => log('DEBUG5', 'lie'))
    for (;;) write(...many)
  },
  'logs without end instead of an answer': () => {
    onArchive(() => {
      for (;;) write(log('LOG', 'lie without end'))
    })
  },
  'sends pongs without end': () => {
    const many = Array.from({ length: 10_000 }, () => frame('p'))
    for (;;) write(...many)
  },

  // About files
  'answers a request that comes later': () => onArchive((request, file) => [archived(request + 1, file)]),
  'answers a negative request': () => onArchive((_, file) => [archived(-1, file)]),
  'answers request 0': () => onArchive((_, file) => [archived(0, file)]),
  'answers for another file': () => onArchive(request => [archived(request, '00000001000000FF000000FF')]),
  'answers for no file': () => onArchive(request => [archived(request, '')]),
  'answers for a longer name': () => onArchive((request, file) => [archived(request, `${file}.backup`)]),
  'answers for a shorter name': () => onArchive((request, file) => [archived(request, file.slice(0, -1))]),
  'answers with neither true nor false': () => onArchive((request, file) => [archived(request, file, 2)]),
  'answers with the answer to a check': () => onArchive(request => [checked(request)]),
  'answers twice': () => onArchive((request, file) => [archived(request, file, 0), archived(request, file)]),
  'answers and is ready again': () => onArchive(() => [ready()]),
  'answers with half a frame and is silent': () =>
    onArchive((request, file) => {
      write(archived(request, file).subarray(0, 12))
      pause()
      return []
    }),
  'answers with half a frame and ends': () =>
    onArchive((request, file) => {
      write(archived(request, file).subarray(0, 12))
      process.exit(1)
    }),
  'does not answer': () =>
    onArchive(() => {
      pause()
      return []
    }),
  'answers a check at length': () => {
    start()
    write(checked(readUntil('C').readInt32BE(0), 0, text200k))
    tell('answered')
    pause()
  },
  'answers a little late': () => {
    start()
    for (;;) {
      const { type, payload } = read()
      if (type === 'C') write(checked(payload.readInt32BE(0)))
      if (type !== 'A') continue
      // Within the two seconds in which the other end asks whether it is still here.
      readUntil('P')
      tell('answered late')
      write(archived(payload.readInt32BE(0), fileOf(payload)), frame('p'))
      return honestly()
    }
  },
}

tell('starts')
try {
  const lie = scenarios[scenario]
  if (lie === undefined) throw new Error(`there is no lie "${scenario}"`)
  lie()
  // What has been written stands; nothing more comes, and everything is read.
  for (;;) read()
} catch (error) {
  // The other end has closed the channel, as it should.
  if (!(error instanceof Error && 'code' in error)) throw error
  process.exit(0)
}

// What the Node end does with what comes at the wrong time, and with more than anybody reads.

import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { Bridge } from '../src/bridge/bridge.ts'
import { encodeFrame, FrameReader, FrameSplitter } from '../src/bridge/frame.ts'
import type { FromServer } from '../src/bridge/messages.ts'
import type { AnyLevel, LogMessage } from '../src/contract/error-report.ts'
import { SimulatedClock } from '../src/system/simulated-clock.ts'

const file = '000000010000000000000001'
const path = `/data/pg_wal/${file}`

const hello = encodeFrame('H', [
  1,
  180_000,
  16_777_216,
  1,
  '1',
  '/data',
  '',
  'm',
  0,
  'postgresql.conf',
  4,
  512,
])
const settings = encodeFrame('S', [0, 'postgresql.conf', 4, 512])
const check = (request: number) => encodeFrame('C', [request])
const archive = (request: number) => encodeFrame('A', [request, 1_000, file, path])
const ping = encodeFrame('P', [])
const quit = encodeFrame('Q', [1_000])

/** The thread that serves the channel, alone. */
function stage() {
  const clock = new SimulatedClock()
  const given: FromServer['type'][] = []
  const frames: string[] = []
  const logged: string[] = []
  const stderr: LogMessage[] = []
  const exits: number[] = []
  const splitter = new FrameSplitter()
  let unsentBytes = 0
  const bridge = new Bridge({
    clock,
    channel: {
      write: bytes => {
        for (const { type, payload } of splitter.push(bytes)) {
          frames.push(type)
          const reader = new FrameReader(payload)
          if (type === 'l') logged.push(`${reader.string()} ${reader.string()}${reader.string()}`)
        }
      },
      unsentBytes: () => unsentBytes,
    },
    moduleThread: { post: message => given.push(message.type), isAlive: async () => {} },
    stderr: message => stderr.push(message),
    residentBytes: () => 0,
    exit: status => exits.push(status),
  })
  return {
    bridge,
    clock,
    given,
    frames,
    logged,
    stderr,
    exits,
    setUnsentBytes: (bytes: number) => (unsentBytes = bytes),
    say: (level: AnyLevel, errmsg: string) => bridge.forward({ type: 'log', message: { level, errmsg } }),
    serve: () => {
      bridge.receive(hello)
      bridge.forward({ type: 'ready' })
    },
  }
}

suite('the Node end takes', () => {
  test('what the C end says in a whole life', () => {
    const { bridge, given, exits } = stage()
    bridge.receive(hello)
    bridge.forward({ type: 'ready' })
    bridge.receive(Buffer.concat([check(7), archive(8), ping, settings, check(9), archive(10), quit]))
    assert.deepEqual(given, ['hello', 'check', 'archive', 'settings', 'check', 'archive', 'quit'])
    assert.deepEqual(exits, [])
  })

  test('the end before the module has been started', () => {
    const { bridge, given, exits } = stage()
    bridge.receive(Buffer.concat([hello, quit]))
    assert.deepEqual([given, exits], [['hello', 'quit'], []])
  })

  test('request 1 after the highest number', () => {
    const { bridge, serve, exits } = stage()
    serve()
    bridge.receive(Buffer.concat([check(2_147_483_647), archive(1), check(2)]))
    assert.deepEqual(exits, [])
  })
})

suite('the Node end refuses, and says why in one line,', () => {
  const early = { settings, check: check(1), archive: archive(1), ping }
  const cases: Record<string, { before: Uint8Array[]; isReady?: boolean; frame: Uint8Array; says: string }> =
    {
      'a second handshake': {
        before: [hello],
        isReady: true,
        frame: hello,
        says: '"hello" is not possible while serving',
      },
      'a second handshake before the module is ready': {
        before: [hello],
        frame: hello,
        says: '"hello" is not possible while starting',
      },
      'the end of a connection that has not begun': {
        before: [],
        frame: quit,
        says: '"quit" is not possible while greeting',
      },
      'a request after the end': {
        before: [hello, quit],
        isReady: true,
        frame: check(1),
        says: '"check" is not possible while quitting',
      },
      'a second end': { before: [hello, quit], frame: quit, says: '"quit" is not possible while quitting' },
      'a request twice': {
        before: [hello, check(5)],
        isReady: true,
        frame: archive(5),
        says: 'request 5 does not follow 5',
      },
      'a request before the last one': {
        before: [hello, check(5)],
        isReady: true,
        frame: archive(4),
        says: 'request 4 does not follow 5',
      },
      'a request that leaves one out': {
        before: [hello, check(5)],
        isReady: true,
        frame: archive(7),
        says: 'request 7 does not follow 5',
      },
    }
  for (const [type, frame] of Object.entries(early)) {
    cases[`"${type}" before the handshake`] = {
      before: [],
      frame,
      says: `"${type}" is not possible while greeting`,
    }
    cases[`"${type}" before the module is ready`] = {
      before: [hello],
      frame,
      says: `"${type}" is not possible while starting`,
    }
  }
  for (const [what, { before, isReady, frame, says }] of Object.entries(cases)) {
    test(what, () => {
      const { bridge, given, exits, stderr } = stage()
      for (const each of before) {
        bridge.receive(each)
        if (each === hello && isReady) bridge.forward({ type: 'ready' })
      }
      const givenBefore = given.length
      bridge.receive(frame)
      assert.deepEqual(exits, [1])
      assert.deepEqual(stderr, [{ level: 'FATAL', errmsg: `pgarchivist: ${says}` }])
      assert.equal(given.length, givenBefore, 'the module has not heard of it')
    })
  }
})

suite('of a module that reports without end', () => {
  const dropped = /^WARNING (\d+) messages of the archive module came too fast and were dropped$/

  test('a bounded number of lines is written, how many were left out is said, and its ERROR stays', () => {
    const { bridge, serve, say, logged, frames } = stage()
    serve()
    bridge.receive(archive(1))
    for (let line = 0; line < 100_000; line++) say('LOG', 'line')
    say('ERROR', 'why it failed')
    bridge.forward({ type: 'archived', request: 1, archived: false, file })
    const lines = logged.filter(each => each === 'LOG line').length
    assert.equal(lines, 5_000)
    assert.deepEqual(logged.slice(lines), [
      'WARNING 95000 messages of the archive module came too fast and were dropped',
      'ERROR why it failed',
    ])
    assert.equal(frames.at(-1), 'a')
  })

  test('so is the number of bytes', () => {
    const { bridge, serve, say, logged } = stage()
    serve()
    bridge.receive(archive(1))
    for (let line = 0; line < 1_000; line++) say('WARNING', 'x'.repeat(10_000))
    bridge.forward({ type: 'archived', request: 1, archived: false, file })
    assert.equal(logged.length, 106)
    assert.match(logged[105] ?? '', dropped)
  })

  test('it is told once in each attempt, and the flood is bounded over attempts too', async () => {
    const { bridge, clock, serve, say, logged } = stage()
    serve()
    await clock.run(
      (async () => {
        for (let request = 1; request <= 60; request++) {
          bridge.receive(archive(request))
          for (let line = 0; line < 1_000; line++) say('LOG', 'line')
          await clock.sleep(1_000)
          bridge.forward({ type: 'archived', request, archived: false, file })
        }
      })(),
    )
    const lines = logged.filter(each => each === 'LOG line').length
    const notes = logged.filter(each => dropped.test(each))
    assert(lines > 5_000 && lines <= 5_000 + 60 * 50, `${lines} lines`)
    assert(notes.length > 0 && notes.length <= 60, `${notes.length} notes`)
    const sum = notes.reduce((total, note) => total + Number(dropped.exec(note)?.[1]), 0)
    assert.equal(lines + sum, 60_000)
  })

  test('what it reports at DEBUG, which the server may not log at all, takes no place of the rest', () => {
    const { bridge, serve, say, logged } = stage()
    serve()
    bridge.receive(archive(1))
    for (let line = 0; line < 100_000; line++) say('DEBUG1', 'line')
    say('LOG', 'a fact')
    assert.equal(logged.at(-1), 'LOG a fact')
  })

  test('one that archives may go on to talk about it', () => {
    const { bridge, serve, say, logged } = stage()
    serve()
    for (let request = 1; request <= 1_000; request++) {
      bridge.receive(archive(request))
      for (let line = 0; line < 50; line++) say('LOG', 'line')
      bridge.forward({ type: 'archived', request, archived: true, file })
    }
    assert.equal(logged.length, 50_000)
  })

  test('when the server does not read, an ERROR is sent all the same', () => {
    const { bridge, serve, say, logged, setUnsentBytes } = stage()
    serve()
    bridge.receive(archive(1))
    setUnsentBytes(2 * 1024 * 1024)
    say('LOG', 'lost')
    say('ERROR', 'kept')
    assert.deepEqual(logged.slice(-1), ['ERROR kept'])
    assert(!logged.includes('LOG lost'))
  })

  test('what is said outside of a call is bounded too', () => {
    const { serve, say, stderr } = stage()
    serve()
    for (let line = 0; line < 100_000; line++) say('LOG', 'line')
    assert.equal(stderr.length, 5_000)
  })

  test('its flood does not hide that it is ended', async () => {
    const { bridge, clock, serve, say, stderr, exits } = stage()
    serve()
    await clock.run(
      (async () => {
        for (let request = 1; request <= 3; request++) {
          bridge.receive(archive(request))
          for (let line = 0; line < 10_000; line++) say('LOG', 'line')
          await clock.sleep(2_000)
        }
      })(),
    )
    assert.deepEqual(exits, [1])
    assert.deepEqual(stderr.at(-1), {
      level: 'WARNING',
      errmsg: `archive module has not answered for "${file}" in 3 attempts and is started again`,
      errhint: 'See "pgarchivist.file_timeout".',
    })
  })
})

test('what a module says while it is asked to quit goes to the server, which listens', () => {
  const { bridge, serve, say, logged, stderr } = stage()
  serve()
  say('LOG', 'nobody asked')
  bridge.receive(quit)
  say('NOTICE', 'my last words')
  assert.deepEqual(logged, ['NOTICE my last words'])
  assert.deepEqual(
    stderr.map(({ errmsg }) => errmsg),
    ['nobody asked'],
  )
})

// Whatever a module says and declares, what is sent fits a frame and is what the other end takes.

import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { DeclaringGucRegistry } from '../src/bridge/declaring-guc-registry.ts'
import { FrameReader, FrameSplitter, frameBytesMax } from '../src/bridge/frame.ts'
import { encodeToServer, type ToServer } from '../src/bridge/messages.ts'
import type { LogMessage } from '../src/contract/error-report.ts'
import type { GucFlag, GucString } from '../src/contract/guc.ts'
import { settingsOf } from '../src/host/settings.ts'

/** The strings of a frame. */
function stringsOf(message: ToServer, skip = 0): string[] {
  const frame = encodeToServer(message)
  assert(frame.length <= frameBytesMax)
  const [{ payload } = { payload: Buffer.alloc(0) }] = [...new FrameSplitter().push(frame)]
  const strings: string[] = []
  const reader = new FrameReader(payload.subarray(skip))
  for (;;) {
    try {
      strings.push(reader.string())
    } catch {
      return strings
    }
  }
}

const million = 1_000_000

suite('a report', () => {
  const logged = (message: Partial<LogMessage>) =>
    stringsOf({ type: 'log', message: { level: 'LOG', errmsg: 'x', ...message } })

  for (const character of ['x', 'ü', '€', '😀']) {
    test(`of a million times "${character}" in each field is shortened, and does not end within a character`, () => {
      const text = character.repeat(million)
      const [level, , ...texts] = logged({ errmsg: text, errdetail: text, errhint: text })
      assert.equal(level, 'LOG')
      for (const shortened of texts) {
        assert.match(shortened, new RegExp(`^(${character})+…$`, 'u'))
        const bytes = Buffer.byteLength(shortened)
        assert(bytes <= 16 * 1024 && bytes > 16 * 1024 - 8, `${bytes} bytes`)
      }
    })
  }

  test('of just as many bytes as are allowed is whole', () => {
    const text = 'x'.repeat(16 * 1024)
    assert.equal(logged({ errmsg: text })[2], text)
    assert.equal(logged({ errmsg: `${text}x` })[2], `${text.slice(0, -3)}…`)
  })

  test('with something else than an SQLSTATE has none', () => {
    for (const errcode of ['x'.repeat(million), '2201', '220233', '22 23', 'üüüüü', ''])
      assert.equal(logged({ errcode })[1], '')
    assert.equal(logged({ errcode: '22023' })[1], '22023')
  })

  test('of a level that does not exist, as a worker may send it, is a LOG', () => {
    for (const level of ['ALARM', 'x'.repeat(million), '']) {
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- that is the point
      assert.deepEqual(logged({ level: level as 'LOG' }).slice(0, 1), ['LOG'])
    }
  })
})

test('the DETAIL of "not configured" is as long as the other end keeps, at a whole character', () => {
  const detail = '€'.repeat(million)
  const [shortened = ''] = stringsOf({ type: 'checked', request: 1, configured: false, detail }, 5)
  assert.equal(shortened, `${'€'.repeat(332)}…`)
})

function registry(values: Record<string, string> = {}) {
  const sent: ToServer[] = []
  const said: LogMessage[] = []
  const gucs = new DeclaringGucRegistry({
    log: message => said.push(message),
    send: message => sent.push(message),
    inServer: [],
  })
  gucs.load(
    settingsOf(Object.entries(values).map(([name, value]) => ({ name, value, source: 'PGC_S_FILE' }))),
  )
  return { gucs, sent, said }
}

const text = (more: Partial<GucString>): GucString => ({
  name: 'a.b',
  short_desc: '',
  boot_value: '',
  ...more,
})

suite('a declaration', () => {
  test('has its descriptions shortened', () => {
    const { gucs, sent } = registry()
    gucs.defineString(text({ short_desc: 'x'.repeat(million), long_desc: 'ü'.repeat(million) }))
    const [message] = sent
    assert(message !== undefined)
    const [, , shortDesc, longDesc] = stringsOf(message)
    assert.deepEqual([shortDesc, longDesc], [`${'x'.repeat(1_021)}…`, `${'ü'.repeat(510)}…`])
  })

  test('without a description, as one may come without a compiler, has an empty one', () => {
    const { gucs, sent } = registry()
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- that is the point
    gucs.defineString({ name: 'a.b', boot_value: '' } as unknown as GucString)
    assert.equal(sent.length, 1)
    stringsOf(sent[0] ?? { type: 'pong' })
  })

  const part = 'x'.repeat(63)
  test('may have a name of two times 63 bytes, a boot value of 16 kB less the rest, and any context', () => {
    const { gucs, sent } = registry()
    gucs.defineString(text({ name: `${part}.${part}` }))
    gucs.defineString(text({ name: `ü.${'ü'.repeat(31)}` }))
    for (const context of [
      'PGC_SIGHUP',
      'PGC_SUSET',
      'PGC_USERSET',
      'PGC_SU_BACKEND',
      'PGC_BACKEND',
    ] as const)
      gucs.defineString(text({ name: `a.${context}`, context }))
    gucs.defineString(text({ name: 'a.long', boot_value: 'x'.repeat(16_000) }))
    assert.equal(sent.length, 8)
  })

  const refused: Record<string, { declare: (gucs: DeclaringGucRegistry) => void; because: string | RegExp }> =
    {
      'of a name that is longer': {
        declare: gucs => gucs.defineString(text({ name: `a.${part}x` })),
        because: /^The name is not two simple identifiers of at most 63 bytes/,
      },
      'of a prefix that is longer': {
        declare: gucs => gucs.defineString(text({ name: `${part}x.a` })),
        because: /^The name is not/,
      },
      'of a name of a million characters': {
        declare: gucs => gucs.defineString(text({ name: `a.${'x'.repeat(million)}` })),
        because: /^The name is not/,
      },
      'of a name of three parts': {
        declare: gucs => gucs.defineString(text({ name: 'a.b.c' })),
        because: /^The name is not/,
      },
      'with a flag that does not exist': {
        // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- that is the point
        declare: gucs => gucs.defineString(text({ flags: ['GUC_WHATEVER' as GucFlag] })),
        because: 'There is no flag "GUC_WHATEVER" for it.',
      },
      'with two units': {
        declare: gucs =>
          gucs.defineInt({
            name: 'a.b',
            short_desc: '',
            boot_value: 1,
            flags: ['GUC_UNIT_MS', 'GUC_UNIT_S'],
          }),
        because: 'It has more than one unit.',
      },
      'with a context that does not exist': {
        // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- that is the point
        declare: gucs => gucs.defineString(text({ context: 'x'.repeat(million) as 'PGC_SIGHUP' })),
        because: `There is no context "${'x'.repeat(200)}…" for it.`,
      },
      'of an integer with a limit that is none': {
        declare: gucs => gucs.defineInt({ name: 'a.b', short_desc: '', boot_value: 1, max_value: 1.5 }),
        because: 'Its limits are not integers of 32 bits.',
      },
      'of an integer with a limit of more than 32 bits': {
        declare: gucs => gucs.defineInt({ name: 'a.b', short_desc: '', boot_value: 1, max_value: 2 ** 31 }),
        because: 'Its limits are not integers of 32 bits.',
      },
      'of a number without a limit': {
        declare: gucs =>
          gucs.defineReal({
            name: 'a.b',
            short_desc: '',
            boot_value: 1,
            max_value: Number.POSITIVE_INFINITY,
          }),
        because: 'Its limits are not finite numbers.',
      },
      'of an enum with 1,001 options': {
        declare: gucs =>
          gucs.defineEnum({
            name: 'a.b',
            short_desc: '',
            boot_value: 'o0',
            options: Array.from({ length: 1_001 }, (_, i) => `o${i}`),
          }),
        because: 'It has 1001 options, not 1 to 1000.',
      },
      'of an enum with options of more than 16 kB': {
        declare: gucs =>
          gucs.defineEnum({
            name: 'a.b',
            short_desc: '',
            boot_value: 'a',
            options: ['a', ...Array.from({ length: 900 }, (_, i) => `${i}`.padStart(20, 'x'))],
          }),
        because: /^The declaration takes \d+ bytes, more than 16384\.$/,
      },
      'of a boot value of a million characters': {
        declare: gucs => gucs.defineString(text({ boot_value: 'x'.repeat(million) })),
        because: 'The declaration takes 1000000 bytes, more than 16384.',
      },
    }
  for (const [what, { declare, because }] of Object.entries(refused)) {
    test(`${what} is refused in one line, and not sent`, () => {
      const { gucs, sent } = registry()
      assert.throws(
        () => declare(gucs),
        (thrown: unknown) => {
          const { level, errmsg, errdetail = '' } = thrown as LogMessage
          assert.equal(level, 'ERROR')
          assert.match(errmsg, /^parameter "[^"]{1,201}" cannot be declared$/)
          if (typeof because === 'string') assert.equal(errdetail, because)
          else assert.match(errdetail, because)
          return true
        },
      )
      assert.deepEqual(sent, [])
    })
  }

  test('that the registry refuses itself is not sent either, so that its message arrives', () => {
    for (const declaration of [text({ context: 'PGC_POSTMASTER' }), text({ flags: ['GUC_LIST_QUOTE'] })]) {
      const { gucs, sent } = registry()
      assert.throws(() => gucs.defineString(declaration), { level: 'FATAL' })
      assert.deepEqual(sent, [])
    }
  })

  test('is the last one after 256', () => {
    const { gucs, sent } = registry()
    for (let i = 0; i < 256; i++) gucs.defineBool({ name: `a.b${i}`, short_desc: '', boot_value: true })
    assert.equal(sent.length, 256)
    assert.throws(() => gucs.defineBool({ name: 'a.more', short_desc: '', boot_value: true }), {
      level: 'ERROR',
      errmsg: 'parameter "a.more" cannot be declared',
      errdetail: 'A module can declare 256 parameters.',
    })
    assert.equal(sent.length, 256)
  })
})

suite('a prefix', () => {
  for (const prefix of ['', 'a.b', 'a b', '1a', 'x'.repeat(64), '%s']) {
    test(`"${prefix}" is refused in one line`, () => {
      const { gucs, sent } = registry()
      assert.throws(() => gucs.markPrefixReserved(prefix), {
        level: 'ERROR',
        errmsg: `prefix "${prefix}" cannot be reserved`,
        errdetail: 'It is not a simple identifier of at most 63 bytes.',
      })
      assert.deepEqual(sent, [])
    })
  }

  test('is reserved once, and the last one after 64', () => {
    const { gucs, sent } = registry()
    for (let turn = 0; turn < 2; turn++) for (let i = 0; i < 64; i++) gucs.markPrefixReserved(`p${i}`)
    assert.equal(sent.length, 64)
    assert.throws(() => gucs.markPrefixReserved('more'), {
      level: 'ERROR',
      errmsg: 'prefix "more" cannot be reserved',
      errdetail: 'A module can reserve 64 prefixes.',
    })
  })
})

suite('a value that is not UTF-8', () => {
  const warning = {
    level: 'WARNING',
    errmsg: 'the value of parameter "a.b" is not UTF-8',
    errhint:
      'Programs in TypeScript find files only where their paths are UTF-8. A symbolic link can be such a path.',
  }
  const bad = new FrameReader(Buffer.from([0x2f, 0xe9, 0])).string()

  test('is told when its parameter is declared', () => {
    const { gucs, said } = registry({ 'a.b': bad, 'other.setting': bad })
    gucs.defineString(text({}))
    assert.deepEqual(said, [warning])
  })

  test('is told when it comes with a reload, once', () => {
    const { gucs, said } = registry({ 'a.b': '/good' })
    gucs.defineString(text({}))
    const settings = settingsOf([{ name: 'a.b', value: bad, source: 'PGC_S_FILE' }])
    gucs.reload(settings)
    gucs.reload(settings)
    assert.deepEqual(said, [warning])
  })
})

/**
 * The C end of the bridge, linked with a stub of a server, is told whatever a fuzzer comes up with. Ten seconds of it
 * here; for longer, PGARCHIVIST_FUZZ_SECONDS=3600 scripts/check test/protocol-fuzz.test.ts
 */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { promisify } from 'node:util'
import { sourceDirectory } from '../src/cli/install/compile.ts'
import foundInputs from './fuzz/found-inputs.json' with { type: 'json' }
import goldenFrames from './protocol/golden-frames.json' with { type: 'json' }
import { serverHeaders } from './support/server-library.ts'
import { type TemporaryDirectory, temporaryDirectory } from './support/unprivileged.ts'

const run = promisify(execFile)

const seconds = Number(process.env['PGARCHIVIST_FUZZ_SECONDS'] ?? '10')
// A short run is the same every time, except for how far it comes; a long one finds something new every day.
const dayMs = 86_400_000
const seed = seconds > 60 ? Math.floor(Date.now() / dayMs) : 1

const here = join(import.meta.dirname, 'fuzz')
// Halt at the first complaint, whichever sanitizer makes it. The leak checker needs to trace its own process, which
// containers forbid, and the library's memory is the server's to free.
const environment = { ...process.env, ASAN_OPTIONS: 'detect_leaks=0', UBSAN_OPTIONS: 'print_stacktrace=1' }

async function build(directory: string): Promise<string> {
  const headers = (await serverHeaders()).get(18)
  assert.ok(headers, 'the headers of PostgreSQL 18 are missing')
  const checks = ['-fsanitize=address,undefined,float-cast-overflow', '-fno-sanitize-recover=all']
  // As the library is built, but for these checks.
  const options = ['-g', '-O1', '-fwrapv', '-fno-strict-aliasing', ...checks]
  const include = [here, sourceDirectory, headers].map(each => `-I${each}`)
  const sources = {
    library: [join(here, 'fuzz-library.c'), '-fsanitize-coverage=trace-pc'],
    frame: [join(sourceDirectory, 'frame.c'), '-fsanitize-coverage=trace-pc'],
    stub: [join(here, 'server-stub.c')],
    driver: [join(here, 'fuzz-driver.c')],
  }
  const objects: string[] = []
  for (const [name, source] of Object.entries(sources)) {
    const object = join(directory, `${name}.o`)
    await run('gcc', [...options, ...include, '-c', '-o', object, ...source])
    objects.push(object)
  }
  const program = join(directory, 'fuzz')
  await run('gcc', [...options, '-o', program, ...objects])
  return program
}

/** Its output, or its complaint. */
async function fuzz(program: string, ms: number, inputs: string[]): Promise<string> {
  const running = run(program, [String(ms), String(seed)], {
    env: environment,
    timeout: ms + 60_000,
    killSignal: 'SIGKILL',
    maxBuffer: 16 * 1024 * 1024,
  })
  running.child.stdin?.end(inputs.map(input => `${input}\n`).join(''))
  return (await running).stdout
}

suite('the C end, fuzzed', () => {
  let directory: TemporaryDirectory
  let program: string
  before(async () => {
    directory = await temporaryDirectory()
    program = await build(directory.path)
  })
  after(async () => await directory[Symbol.asyncDispose]())

  for (const { name, input } of foundInputs) {
    test(`bears ${name}`, async () => {
      assert.match(await fuzz(program, 0, [input]), /^1 inputs, /)
    })
  }

  test(`bears everything for ${seconds} seconds`, { timeout: (seconds + 120) * 1_000 }, async context => {
    const frames = goldenFrames.filter(frame => frame.from === 'Node').map(frame => frame.bytes)
    const summary = await fuzz(program, seconds * 1_000, frames)
    context.diagnostic(summary.trimEnd())
    // Fewer than these would mean that it fuzzes nothing: a frame alone takes about a hundred.
    const ways = Number(/, (\d+) ways\n$/.exec(summary)?.[1])
    assert.ok(ways > 400, summary)
  })
})

import assert from 'node:assert/strict'
import { execFile, execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, constants, openSync } from 'node:fs'
import {
  chmod,
  copyFile,
  link,
  mkdir,
  open,
  readFile,
  realpath,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { test } from 'node:test'
import { temporaryDirectory, unprivileged } from './support/unprivileged.ts'

const launcher = join(import.meta.dirname, '../bin/pgarchivist')
const nodePackage = `node-linux-${process.arch}`

// What a program in place of pgarchivist finds: how it was started, and by whom.
const program = `console.log(JSON.stringify({
  file: import.meta.filename, args: process.argv.slice(2), directory: process.cwd(), pid: process.pid,
  version: process.version, node: process.execPath, options: process.env['NODE_OPTIONS'] ?? null }))`

interface Seen {
  file: string
  args: string[]
  directory: string
  pid: number
  version: string
  node: string
  options: string | null
}

interface Ended {
  status: number | string | undefined
  stderr: string
  pid: number | undefined
  seen: Seen | undefined
}

async function start(
  command: string,
  args: string[] = ['info'],
  env: NodeJS.ProcessEnv = {},
  cwd = '/',
): Promise<Ended> {
  return await new Promise(resolve => {
    const child = execFile(command, args, { ...unprivileged, env, cwd }, (error, stdout, stderr) => {
      const seen: Seen | undefined = stdout === '' ? undefined : JSON.parse(stdout)
      resolve({ status: error === null ? 0 : (error.code ?? undefined), stderr, pid: child.pid, seen })
    })
  })
}

async function put(path: string, text: string): Promise<string> {
  await mkdir(dirname(path), { recursive: true })
  await writeFile(path, text)
  return path
}

// Lays out a checkout or an installation in a directory.
async function place(root: string, entry: 'src/cli/main.ts' | 'dist/cli/main.js'): Promise<string> {
  await put(join(root, entry), program)
  await put(join(root, 'package.json'), '{ "type": "module" }')
  await mkdir(join(root, 'bin'))
  await copyFile(launcher, join(root, 'bin/pgarchivist'))
  await chmod(join(root, 'bin/pgarchivist'), 0o755)
  return join(root, 'bin/pgarchivist')
}

// Brings a package with a node that says of itself that it is of some version, and is this test's own.
async function placeNode(modules: string, version: string): Promise<void> {
  await put(
    join(modules, nodePackage, 'package.json'),
    `{\n  "name": "${nodePackage}",\n  "version": "${version}"\n}\n`,
  )
  await mkdir(join(modules, nodePackage, 'bin'))
  await placeOwnNode(join(modules, nodePackage, 'bin/node'))
}

// A link is quicker than a copy of a hundred megabytes, but not allowed everywhere.
async function placeOwnNode(path: string): Promise<void> {
  await link(process.execPath, path).catch(async () => await copyFile(process.execPath, path))
}

async function placeNodeOnPath(directory: string, version: string): Promise<string> {
  const path = await put(
    join(directory, 'node'),
    `#!/bin/sh\ncase $1 in --version) echo v${version} ;; *) exec ${join(directory, 'real')} "$@" ;; esac\n`,
  )
  await chmod(path, 0o755)
  await placeOwnNode(join(directory, 'real'))
  return directory
}

const missingNode =
  'pgarchivist: Node 24.21.0 or newer is needed: install it on the PATH, or run "npm ci" (in an installation: "npm install") without omitting optional packages\n'

test('a checkout runs from source in place of its launcher, wherever it is started, with an empty environment', async () => {
  await using directory = await temporaryDirectory()
  const root = join(await realpath(directory.path), 'a checkout')
  const command = await place(root, 'src/cli/main.ts')
  await put(join(root, 'dist/cli/main.js'), 'process.exit(9)')
  await placeNode(join(root, 'node_modules'), '24.21.0')
  const { status, stderr, pid, seen } = await start(command, ['info', 'two words', ''])
  assert.equal(stderr, '')
  assert.equal(status, 0)
  assert.equal(seen?.file, join(root, 'src/cli/main.ts'))
  assert.equal(seen?.node, join(root, 'node_modules', nodePackage, 'bin/node'))
  assert.deepEqual(seen?.args, ['info', 'two words', ''])
  assert.equal(seen?.directory, '/')
  // Signals to the started process reach the program because it is the same process.
  assert.equal(seen?.pid, pid)

  const relative = await start('./pgarchivist', ['info'], {}, join(root, 'bin'))
  assert.equal(relative.seen?.directory, join(root, 'bin'))
  assert.equal(relative.seen?.file, join(root, 'src/cli/main.ts'))
})

test('it is found through links to the file and to the directory', async () => {
  await using directory = await temporaryDirectory()
  const top = await realpath(directory.path)
  const root = join(top, 'checkout')
  const command = await place(root, 'src/cli/main.ts')
  await placeNode(join(root, 'node_modules'), '24.21.0')
  await mkdir(join(top, 'elsewhere/node_modules/.bin'), { recursive: true })
  await symlink(root, join(top, 'elsewhere/node_modules/pgarchivist'))
  await symlink('../pgarchivist/bin/pgarchivist', join(top, 'elsewhere/node_modules/.bin/pgarchivist'))
  await symlink(join(top, 'elsewhere/node_modules/.bin/pgarchivist'), join(top, 'link'))
  for (const path of [
    join(top, 'link'),
    join(top, 'elsewhere/node_modules/.bin/pgarchivist'),
    join(top, 'elsewhere/node_modules/pgarchivist/bin/pgarchivist'),
  ]) {
    for (const env of [{}, { PATH: '' }, { PATH: '/usr/bin:/bin' }]) {
      const { stderr, seen } = await start(path, [], env)
      assert.equal(stderr, '')
      assert.equal(seen?.file, await realpath(join(dirname(command), '../src/cli/main.ts')))
    }
  }
})

test('an installed package runs its dist with the Node that npm put beside it or above it', async () => {
  await using directory = await temporaryDirectory()
  const top = await realpath(directory.path)
  const modules = join(top, 'node_modules')
  const root = join(modules, 'pgarchivist')
  const command = await place(root, 'dist/cli/main.js')
  await placeNode(modules, '24.21.0')
  assert.equal((await start(command)).seen?.node, join(modules, nodePackage, 'bin/node'))
  assert.equal((await start(command)).seen?.file, join(root, 'dist/cli/main.js'))

  // Another program wants another version, so npm nests ours.
  await put(join(modules, nodePackage, 'package.json'), '{\n  "version": "20.1.0"\n}\n')
  await placeNode(join(root, 'node_modules'), '24.21.0')
  assert.equal((await start(command)).seen?.node, join(root, 'node_modules', nodePackage, 'bin/node'))
})

test('without a bundled Node that is new enough, one on the PATH is taken, and an old one is refused', async () => {
  await using directory = await temporaryDirectory()
  const top = await realpath(directory.path)
  const command = await place(join(top, 'node_modules/pgarchivist'), 'dist/cli/main.js')
  await placeNode(join(top, 'node_modules'), '22.9.9')
  for (const [version, enough] of [
    ['24.21.0', true],
    ['24.22.0', true],
    ['26.0.0', true],
    ['100.1.2', true],
    ['24.20.9', false],
    ['20.21.0', false],
    ['nonsense', false],
  ] as const) {
    const path = await placeNodeOnPath(join(top, `path-${version}`), version)
    const { status, stderr, seen } = await start(command, ['info'], { PATH: `${path}:/usr/bin:/bin` })
    assert.equal(stderr, enough ? '' : missingNode, version)
    assert.equal(status, enough ? 0 : 1, version)
    assert.equal(seen === undefined ? undefined : basename(seen.node), enough ? 'real' : undefined)
  }
  const { status, stderr } = await start(command, ['info'], { PATH: '' })
  assert.equal(stderr, missingNode)
  assert.equal(status, 1)
})

test('with too little memory for Node it says so, and does not wait for what never ends', async () => {
  await using directory = await temporaryDirectory()
  const root = await realpath(directory.path)
  const command = await place(root, 'src/cli/main.ts')
  await placeNode(join(root, 'node_modules'), '24.21.0')
  const limited = async (option: string, kilobytes: string, name: string) =>
    await start('/bin/sh', ['-c', 'ulimit "$1" "$2"; exec "$0" "$3" a b', command, option, kilobytes, name])
  for (const [option, said] of [
    ['-v', 'address space'],
    ['-d', 'data size'],
  ] as const) {
    for (const [name, expected] of [
      ['info', 1],
      ['archive-get', 205],
      ['archive-push', 7],
    ] as const) {
      const { status, stderr } = await limited(option, '150000', name)
      assert.equal(
        stderr.split(' here, ')[0],
        `pgarchivist: ${said} of a process is limited to 153600000 bytes`,
      )
      assert.equal(status, expected)
    }
    assert.deepEqual((await limited(option, '2000000', 'info')).seen?.args, ['info', 'a', 'b'])
  }
})

test('NODE_OPTIONS for other programs do not reach it', async () => {
  await using directory = await temporaryDirectory()
  const command = await place(join(directory.path, 'checkout'), 'src/cli/main.ts')
  await placeNode(join(directory.path, 'checkout/node_modules'), '24.21.0')
  const { stderr, seen } = await start(command, [], { NODE_OPTIONS: '--require /nowhere/at/all' })
  assert.equal(stderr, '')
  assert.equal(seen?.options, null)
})

test('a checkout without its packages says what to do', async () => {
  await using directory = await temporaryDirectory()
  const command = await place(directory.path, 'src/cli/main.ts')
  const { status, stderr } = await start(command)
  assert.equal(
    stderr,
    `pgarchivist: the packages of this checkout are missing: run "npm ci" in the directory above ${directory.path}/bin\n`,
  )
  assert.equal(status, 1)
})

// "archive-get" is PostgreSQL's restore_command: a status up to 125 that nobody meant ends the WAL of a server there.

const internal = 205

test('archive-get gives the statuses that its program means, and makes a failure of every other one', async () => {
  await using directory = await temporaryDirectory()
  const command = await place(directory.path, 'src/cli/main.ts')
  await placeNode(join(directory.path, 'node_modules'), '24.21.0')
  const data = join(directory.path, 'data')
  await mkdir(data)
  const meant = new Map([100, 101, 201, 202, 203, 204, 205].map(each => [each, each]))
  meant.set(100, 0).set(101, 1)
  for (const ended of [
    0, 1, 2, 3, 7, 13, 99, 100, 101, 102, 125, 126, 127, 134, 143, 200, 201, 202, 203, 204, 205, 206,
  ]) {
    await put(join(directory.path, 'src/cli/main.ts'), `process.exit(${ended})`)
    const { status, stderr } = await start(command, ['archive-get', 'a', 'b'], {}, data)
    assert.equal(status, meant.get(ended) ?? internal, String(ended))
    const expected = meant.has(ended) ? '' : `pgarchivist: internal error: Node ended with status ${ended}\n`
    assert.equal(stderr, expected)
  }
  await put(join(data, 'standby.signal'), '')
  for (const [ended, given] of [
    [100, 0],
    [101, 1],
    [0, 2],
    [1, 2],
    [201, 2],
    [205, 2],
    [3, 2],
  ]) {
    await put(join(directory.path, 'src/cli/main.ts'), `process.exit(${ended})`)
    assert.equal((await start(command, ['archive-get', 'a', 'b'], {}, data)).status, given, String(ended))
  }
})

test('archive-get survives whatever else Node and its program do', async () => {
  await using directory = await temporaryDirectory()
  const command = await place(directory.path, 'src/cli/main.ts')
  await placeNode(join(directory.path, 'node_modules'), '24.21.0')
  const get = async (program: string) => {
    await put(join(directory.path, 'src/cli/main.ts'), program)
    return await start(command, ['archive-get', 'a', 'b'])
  }
  for (const program of [
    `throw new Error('not caught')`,
    `await new Promise(() => {})`,
    `Promise.reject(new Error('not handled'))`,
    `import './not-there.ts'`,
    `this is not a program`,
    `process.kill(process.pid, 'SIGKILL')`,
    `process.kill(process.pid, 'SIGSEGV')`,
    `process.kill(process.pid, 'SIGTERM'); setInterval(() => {}, 1000)`,
    `process.abort()`,
  ]) {
    const { status, stderr } = await get(program)
    assert.equal(status, internal, program)
    assert.match(stderr, /pgarchivist: internal error: Node ended with status \d+\n$/, program)
  }
})

test('archive-get that cannot be started says why, and is a failure', async () => {
  await using directory = await temporaryDirectory()
  const command = await place(directory.path, 'src/cli/main.ts')
  const withoutPackages = await start(command, ['archive-get', 'a', 'b'])
  assert.match(withoutPackages.stderr, /^pgarchivist: the packages of this checkout are missing: /)
  assert.equal(withoutPackages.status, internal)

  await placeNode(join(directory.path, 'node_modules'), '22.0.0')
  const withoutNode = await start(command, ['archive-get', 'a', 'b'], { PATH: '' })
  assert.equal(withoutNode.stderr, missingNode)
  assert.equal(withoutNode.status, internal)

  await rm(join(directory.path, 'src'), { recursive: true })
  const withoutProgram = await start(command, ['archive-get', 'a', 'b'])
  assert.match(withoutProgram.stderr, /^pgarchivist: its program files are missing beside /)
  assert.equal(withoutProgram.status, internal)

  const lost = await start(command, ['archive-get', 'a', 'b'], { PGARCHIVIST_NODE: '/nowhere/node' })
  assert.equal(lost.status, internal)

  await symlink('nowhere', join(directory.path, 'bin/link'))
  await symlink('../bin/pgarchivist', join(directory.path, 'bin/good link'))
  assert.equal(
    (await start(join(directory.path, 'bin/good link'), ['archive-get', 'a', 'b'])).status,
    internal,
  )
})

test('archive-get finds the data directory in its arguments, to know a standby', async () => {
  await using directory = await temporaryDirectory()
  const command = await place(directory.path, 'src/cli/main.ts')
  await placeNode(join(directory.path, 'node_modules'), '24.21.0')
  await put(join(directory.path, 'src/cli/main.ts'), 'process.exit(201)')
  const standby = join(directory.path, 'a standby')
  await put(join(standby, 'standby.signal'), '')
  const other = join(directory.path, 'other')
  await put(join(other, 'standby'), '')
  for (const [cwd, args, isStandby] of [
    [standby, ['a', 'pg_wal/b'], true],
    [standby, ['a', './pg_wal/b'], true],
    [standby, ['a', 'b'], true],
    [other, ['a', 'b'], false],
    [other, ['a', 'pg_wal/b'], false],
    [other, ['a', `${standby}/pg_wal/b`], true],
    [other, ['a', '../a standby/pg_wal/b'], true],
    [standby, ['a', `${other}/pg_wal/b`], false],
    [other, ['-D', standby, 'a', 'b'], true],
    [other, ['a', '-D../a standby', 'b'], true],
    [other, ['a', 'b', '--pgdata', standby], true],
    [other, ['a', 'b', `--pgdata=${standby}`], true],
    [standby, ['a', 'b', '-D', other], false],
    [other, ['a', `${standby}/pg_wal/b`, '--repository', 'file:///x'], true],
    [other, ['--repository', 'file:///x', 'a', `${standby}/pg_wal/b`], true],
    [other, ['a', `${standby}/pg_wal/b`, '--repository=file:///x'], true],
  ] as const) {
    const { status } = await start(command, ['archive-get', ...args], {}, cwd)
    assert.equal(status, isStandby ? 2 : 201, args.join(' '))
  }
})

test('help for archive-get is help, whatever else its statuses mean', async () => {
  await using directory = await temporaryDirectory()
  const command = await place(directory.path, 'src/cli/main.ts')
  await placeNode(join(directory.path, 'node_modules'), '24.21.0')
  assert.equal((await start(command, ['archive-get', '--help'])).status, 0)
  assert.equal((await start(command, ['archive-get', '-h'])).status, 0)
})

test('no status is an answer where it is not asked for one', async () => {
  const wrong: [number, string[]][] = [
    [205, []],
    [205, ['archive_get', 'a', 'b']],
    [205, ['-D', '/', 'archive-get', 'a', 'b']],
    [205, ['--repository', 'file:///srv/wal', 'archive-get', 'a', 'b']],
    [205, ['--help', 'archive-get', 'a', 'b']],
    [205, ['--version', 'archive-get', 'a', 'b']],
    [205, ['archive-get', '-h', 'localhost', 'a', 'b']],
    [205, ['archive-get', 'a', 'b', '--help']],
    [3, ['archive-push', '-h', 'localhost', 'pg_wal/a']],
    [3, ['archive-push', 'pg_wal/a', '--help']],
    [2, ['verify', '-h', 'localhost']],
    [2, ['catch-up', '-h', 'localhost']],
  ]
  for (const [status, args] of wrong) assert.equal(runReal(args).status, status, args.join(' '))
})

test('help and version are there for all commands', async () => {
  const commands = [...runReal(['--help']).stdout.matchAll(/^ {2}([a-z-]+) /gm)].map(each => each[1] ?? '')
  assert.ok(commands.length > 7, commands.join())
  for (const command of commands.filter(each => each !== 'help')) {
    for (const args of [
      [command, '--help'],
      [command, '-h'],
      ['help', command],
    ]) {
      const { status, stdout } = runReal(args)
      assert.equal(status, 0, args.join(' '))
      assert.match(stdout, new RegExp(`^Usage: pgarchivist ${command}`), args.join(' '))
    }
  }
  for (const args of [['--version'], ['-V']]) assert.match(runReal(args).stdout, /^\d+\.\d+\.\d+\n$/)
})

function runReal(args: string[]) {
  const { status, stdout } = spawnSync(launcher, args, { encoding: 'utf8', cwd: '/' })
  return { status, stdout }
}

test('a pipe to which others write as well stays as it is', async () => {
  await using directory = await temporaryDirectory()
  const copy = await place(directory.path, 'dist/cli/main.js')
  await writeFile(
    join(directory.path, 'dist/cli/main.js'),
    `process.stdout.write('out'); process.stderr.write('err'); setInterval(() => {}, 1000)`,
  )
  // As the server's log is for all of its processes: one open file, which they have inherited.
  const pipe = join(directory.path, 'log')
  execFileSync('mkfifo', [pipe])
  await using shared = await open(pipe, 'r+')
  const child = spawn(copy, ['info'], {
    env: { PGARCHIVIST_NODE: process.execPath },
    stdio: ['ignore', shared.fd, shared.fd],
  })
  const ended = once(child, 'exit')
  try {
    for (let bytes = 0; bytes < 'outerr'.length; ) bytes += (await shared.read(Buffer.alloc(6))).bytesRead
    const flags =
      /^flags:\s+(\d+)$/m.exec(await readFile(`/proc/self/fdinfo/${shared.fd}`, 'utf8'))?.[1] ?? ''
    assert.equal(Number.parseInt(flags, 8) & constants.O_NONBLOCK, 0)
  } finally {
    child.kill('SIGKILL')
    await ended
  }
})

test('a named pipe that nobody reads any more keeps nobody waiting', async () => {
  await using directory = await temporaryDirectory()
  const path = join(directory.path, 'log')
  execFileSync('mkfifo', [path])
  const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  const writer = openSync(path, constants.O_WRONLY)
  closeSync(reader)
  try {
    const stdio = ['ignore', 'pipe', writer] as const
    const { status, stdout } = spawnSync(launcher, ['--version'], { stdio: [...stdio], timeout: 60_000 })
    assert.equal(status, 0)
    assert.match(stdout.toString(), /^\d+\.\d+\.\d+\n$/)
  } finally {
    closeSync(writer)
  }
})

test('help shows no default that is nothing', async () => {
  for (const command of [
    'archiver',
    'info',
    'archive-get',
    'verify',
    'archive-push',
    'install',
    'uninstall',
  ]) {
    const { stdout } = spawnSync(launcher, [command, '--help'])
    assert.match(stdout.toString(), /^Usage: /)
    assert.doesNotMatch(stdout.toString(), /default: (\[\]|""|undefined)/, command)
  }
})

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import {
  chmod,
  cp,
  mkdir,
  open,
  readdir,
  readFile,
  realpath,
  rename,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { sourceDirectory, sourceNames } from '../src/cli/install/compile.ts'
import { packagesHere, packagesOf } from '../src/cli/install/packages.ts'
import {
  availableMajors,
  type PostgresServer,
  programDirectories,
  startPostgres,
} from './support/postgresql-server.ts'
import type { Finished } from './support/running-archiver.ts'
import { serverHeaders } from './support/server-library.ts'
import {
  checkout,
  giveAway,
  privateDirectory,
  temporaryDirectory,
  unprivileged,
  unprivilegedEnvironment,
} from './support/unprivileged.ts'

const headers = await serverHeaders()
const packages = await packagesHere()

// More than a compiler takes on a busy machine, and the server for an archived file.
const patienceMs = 60_000

interface Shim {
  pgConfig: string
  pkglibdir: string
  library: string
}

interface ShimOptions {
  version?: string
  includedirServer?: string
  cc?: string
}

// The servers of the tests bring no pg_config. This one answers for a server whose libraries are beside it.
async function placePgConfig(directory: string, options: ShimOptions = {}): Promise<Shim> {
  const { version = '17.4', includedirServer = headers.get(17) ?? '/nowhere', cc = 'cc' } = options
  const pgConfig = join(directory, 'bin/pg_config')
  const pkglibdir = join(directory, 'lib')
  for (const path of [directory, dirname(pgConfig), pkglibdir]) {
    await mkdir(path, { recursive: true })
    await giveAway(path)
  }
  const answers = {
    '--version': `PostgreSQL ${version}`,
    '--bindir': dirname(pgConfig),
    '--includedir-server': includedirServer,
    '--pkglibdir': pkglibdir,
    '--cppflags': '-Wdate-time -D_FORTIFY_SOURCE=2 -D_GNU_SOURCE -I/usr/include/libxml2',
    '--cc': cc,
  }
  const cases = Object.entries(answers).map(([question, answer]) => `${question}) echo '${answer}' ;;\n`)
  await placeProgram(
    pgConfig,
    `for question; do case $question in\n${cases.join('')}*) exit 1 ;;\nesac; done`,
  )
  return { pgConfig, pkglibdir, library: join(pkglibdir, 'pgarchivist.so') }
}

async function placeProgram(path: string, text: string): Promise<string> {
  await writeFile(path, `#!/bin/sh\n${text}\n`)
  await chmod(path, 0o755)
  return path
}

const own = await realpath(join(await checkout(), 'bin/pgarchivist'))

// A compiler that whoever runs the tests prefers must not be preferred here.
function run(program: string, args: string[], env: NodeJS.ProcessEnv = {}): Promise<Finished> {
  return new Promise(resolve => {
    const options = {
      ...unprivileged,
      env: { ...unprivilegedEnvironment, CC: undefined, ...env },
      cwd: '/',
      timeout: patienceMs,
      killSignal: 'SIGKILL',
    } as const
    execFile(program, args, options, (error, stdout, stderr) => {
      resolve({ status: error === null ? 0 : Number(error.code ?? -1), stdout, stderr })
    })
  })
}

// The checkout may be in somebody's home. What is said of that has a test of its own.
async function runOwn(args: string[], env: NodeJS.ProcessEnv = {}): Promise<Finished> {
  const finished = await run(own, args, env)
  return { ...finished, stderr: finished.stderr.replace(/^pgarchivist: warning: only some users .*\n/m, '') }
}

const install = (shim: Shim, more: string[] = [], env: NodeJS.ProcessEnv = {}): Promise<Finished> =>
  runOwn(['install', '--pg-config', shim.pgConfig, ...more], env)

const uninstall = (shim: Shim, more: string[] = []): Promise<Finished> =>
  runOwn(['uninstall', '--pg-config', shim.pgConfig, ...more])

function cannotCompile(t: TestContext): boolean {
  if (headers.has(17)) return false
  t.skip('there are no server headers; scripts/postgresql/install says why')
  return true
}

test('install builds the library for each server that is named, and says so in a line for each', async t => {
  if (cannotCompile(t)) return
  await using directory = await temporaryDirectory()
  const shims: Shim[] = []
  const lines: string[] = []
  for (const [major, includedirServer] of headers) {
    const version = major === 19 ? '19rc1' : `${major}.1`
    const shim = await placePgConfig(join(directory.path, String(major)), { version, includedirServer })
    shims.push(shim)
    lines.push(`PostgreSQL ${version}: installed "${shim.library}"\n`)
  }
  const named = shims.flatMap(shim => ['--pg-config', shim.pgConfig])
  const finished = await runOwn(['install', ...named])
  assert.deepEqual(finished, { status: 0, stdout: lines.join(''), stderr: '' })
  for (const { library, pkglibdir } of shims) {
    assert.equal((await stat(library)).mode & 0o777, 0o755)
    assert.deepEqual(await readdir(pkglibdir), ['pgarchivist.so'])
  }
  t.diagnostic(`PostgreSQL majors covered: ${[...headers.keys()].join(', ')}`)
})

test('a library that is in use is replaced by another file and keeps its content', async t => {
  if (cannotCompile(t)) return
  await using directory = await temporaryDirectory()
  const shim = await placePgConfig(directory.path)
  await writeFile(shim.library, 'the library of an older release')
  await giveAway(shim.library)
  await using inUse = await open(shim.library)
  assert.deepEqual(await install(shim), {
    status: 0,
    stdout: `PostgreSQL 17.4: installed "${shim.library}"\n`,
    stderr: '',
  })
  assert.equal(await inUse.readFile('utf8'), 'the library of an older release')
  assert.equal((await readFile(shim.library)).subarray(1, 4).toString(), 'ELF')
})

// Lays out what a user has, at a path of its own.
async function placeCheckout(root: string): Promise<string> {
  const original = await checkout()
  for (const name of ['bin', 'src', 'examples', 'package.json'])
    await cp(join(original, name), join(root, name), { recursive: true })
  await symlink(await realpath(join(original, 'node_modules')), join(root, 'node_modules'))
  return join(root, 'bin/pgarchivist')
}

test('the installed library archives, and says in the server log when pgarchivist has been moved away', async t => {
  const major = 17
  if (cannotCompile(t) || !(await availableMajors()).includes(major)) return
  await using directory = await temporaryDirectory()
  const top = await realpath(directory.path)
  const shim = await placePgConfig(join(top, 'server'))
  const launcher = await placeCheckout(join(top, 'checkout'))
  await chmod(top, 0o755)
  assert.deepEqual(await run(launcher, ['install', '--pg-config', shim.pgConfig]), {
    status: 0,
    stdout: `PostgreSQL 17.4: installed "${shim.library}"\n`,
    stderr: '',
  })

  const archive = join(top, 'archive')
  await privateDirectory(archive)
  await using server = await startPostgres({
    major,
    walSegmentMegabytes: 1,
    settings: {
      archive_mode: 'on',
      archive_library: shim.library,
      'pgarchivist.module': join(top, 'checkout/examples/copy-to-directory.ts'),
      // The last file cannot be archived once pgarchivist is gone, and nobody here waits for it.
      'pgarchivist.stop_timeout': '0',
      'copy_to_directory.archive_directory': archive,
    },
  })
  const segment = await server.switchWal()
  await logged(server, `LOG:  copied "${segment}" to "${archive}"`)
  assert.equal((await stat(join(archive, segment))).size, 1024 * 1024)

  await server.stop()
  await rename(join(top, 'checkout'), join(top, 'elsewhere'))
  await server.start()
  await server.switchWal()
  await logged(server, `WARNING:  could not execute "${launcher}": No such file or directory`)
  await logged(server, 'HINT:  Has pgarchivist been moved? Run "pgarchivist install" from where it is now.')
})

async function logged(server: PostgresServer, line: string): Promise<void> {
  const deadline = Date.now() + patienceMs
  while (!(await server.log()).split('\n').some(each => each.endsWith(line))) {
    assert.ok(Date.now() < deadline, `"${line}" was not logged:\n${await server.log()}`)
    await new Promise(resolve => setTimeout(resolve, 50))
  }
}

test('with --destdir it is installed below that directory, and starts what is going to be outside of it', async t => {
  if (cannotCompile(t)) return
  await using directory = await temporaryDirectory()
  const top = await realpath(directory.path)
  const shim = await placePgConfig(join(top, 'server'))
  const destdir = join(top, 'package')
  const target = join(destdir, shim.library)
  assert.deepEqual(await install(shim, ['--destdir', destdir]), {
    status: 0,
    stdout: `PostgreSQL 17.4: installed "${target}"\n`,
    stderr: '',
  })
  assert.ok((await readFile(target)).includes(`\0${own}\0`), 'the library does not start what installed it')
  assert.deepEqual(await readdir(shim.pkglibdir), [])

  const launcher = await placeCheckout(join(destdir, 'usr/lib/pgarchivist'))
  await run(launcher, ['install', '--pg-config', shim.pgConfig, '--destdir', destdir])
  assert.ok((await readFile(target)).includes('\0/usr/lib/pgarchivist/bin/pgarchivist\0'))

  assert.deepEqual(await uninstall(shim, ['--destdir', destdir]), {
    status: 0,
    stdout: `PostgreSQL 17.4: removed "${target}"\n`,
    stderr: '',
  })
  assert.deepEqual(await readdir(dirname(target)), [])
})

test('make with the Makefile for PGXS installs a library that archives too', async t => {
  const major = 17
  const programs = (await programDirectories()).get(major)
  const includes = headers.get(major)
  if (cannotCompile(t) || programs === undefined || includes === undefined) return
  await using directory = await temporaryDirectory()
  const top = await realpath(directory.path)
  const launcher = await placeCheckout(join(top, 'checkout'))
  const sources = join(top, 'checkout/src/bridge/pg')
  // Objects are made beside their sources.
  await giveAway(sources)
  await chmod(top, 0o755)
  await mkdir(join(top, 'include'))
  await symlink(includes, join(top, 'include/server'))
  const answers = {
    '--pgxs': join(programs, '../lib/postgresql/pgxs/src/makefiles/pgxs.mk'),
    '--pkglibdir': '/usr/lib/postgresql/17/lib',
    '--includedir': join(top, 'include'),
    '--pkgincludedir': join(top, 'include'),
    '--includedir-server': includes,
    '--version': 'PostgreSQL 17.4',
  }
  const cases = Object.entries(answers).map(([question, answer]) => `${question}) echo '${answer}' ;;\n`)
  const pgConfig = await placeProgram(
    join(top, 'pg_config'),
    `case $1 in\n${cases.join('')}*) echo /nowhere ;;\nesac`,
  )
  const destdir = join(top, 'package')
  await privateDirectory(destdir)
  const made = await run('make', ['-C', sources, 'install', `PG_CONFIG=${pgConfig}`, `DESTDIR=${destdir}`])
  assert.equal(made.status, 0, `${made.stdout}${made.stderr}`)
  const library = join(destdir, answers['--pkglibdir'], 'pgarchivist.so')
  assert.ok((await readFile(library)).includes(`\0${launcher}\0`))

  const archive = join(top, 'archive')
  await privateDirectory(archive)
  await using server = await startPostgres({
    major,
    walSegmentMegabytes: 1,
    settings: {
      archive_mode: 'on',
      archive_library: library,
      'pgarchivist.module': 'basic_archive',
      'basic_archive.archive_directory': archive,
      log_min_messages: 'debug1',
    },
  })
  const segment = await server.switchWal()
  await logged(server, `DEBUG:  archived "${segment}" via basic_archive`)
})

test('--dry-run tells what would be done and with which command, and changes nothing', async t => {
  if (cannotCompile(t)) return
  await using directory = await temporaryDirectory()
  const shim = await placePgConfig(directory.path)
  const sources = join(dirname(dirname(own)), 'src/bridge/pg')
  const command = [
    'cc -O2 -fwrapv -fno-strict-aliasing -fPIC -shared -fvisibility=hidden',
    `-I${headers.get(17)} -I${sources} -D_GNU_SOURCE -I/usr/include/libxml2`,
    `'-DPGARCHIVIST_LAUNCHER="${own}"' -o pgarchivist.so`,
    sourceNames.map(name => join(sources, name)).join(' '),
  ]
  assert.deepEqual(await install(shim, ['--dry-run']), {
    status: 0,
    stdout: `PostgreSQL 17.4: would install "${shim.library}", made by\n  ${command.join(' ')}\n`,
    stderr: '',
  })
  assert.deepEqual(await readdir(shim.pkglibdir), [])

  await writeFile(shim.library, '')
  assert.deepEqual(await uninstall(shim, ['--dry-run']), {
    status: 0,
    stdout: `PostgreSQL 17.4: would remove "${shim.library}"\n`,
    stderr: '',
  })
  assert.deepEqual(await readdir(shim.pkglibdir), ['pgarchivist.so'])
})

test('uninstall removes the library, and is content when there is none', async () => {
  await using directory = await temporaryDirectory()
  const shim = await placePgConfig(directory.path)
  await writeFile(shim.library, '')
  for (const deed of ['removed', 'there is no']) {
    assert.deepEqual(await uninstall(shim), {
      status: 0,
      stdout: `PostgreSQL 17.4: ${deed} "${shim.library}"\n`,
      stderr: '',
    })
  }
  assert.deepEqual(await readdir(shim.pkglibdir), [])
})

test('without --pg-config it acts on what is on the PATH, once for each server', async t => {
  if (cannotCompile(t)) return
  await using directory = await temporaryDirectory()
  const top = directory.path
  const shim = await placePgConfig(join(top, 'server'))
  const old = await placePgConfig(join(top, 'old'), { version: '14.20' })
  const client = await placePgConfig(join(top, 'client'), { version: '16.3', includedirServer: '/nowhere' })
  // Debian's wrapper is such a second way to the same server.
  await mkdir(join(top, 'link'))
  await symlink(shim.pgConfig, join(top, 'link/pg_config'))
  const searchPath = [shim, old, client].map(each => dirname(each.pgConfig)).join(':')
  const { stdout } = await runOwn(['install', '--dry-run'], {
    PATH: `${searchPath}:${join(top, 'link')}:/usr/bin:/bin`,
  })
  // The machine may have servers of its own, which are found as well.
  const ours = stdout.split('\n').filter(line => line.includes(top) || line.startsWith('PostgreSQL 14.20'))
  assert.deepEqual(
    ours.map(line => line.replace(/^ {2}.*/, 'the command')),
    [
      `PostgreSQL 17.4: would install "${shim.library}", made by`,
      'PostgreSQL 14.20: left out, archive modules need PostgreSQL 15 or newer',
      `PostgreSQL 16.3: left out, "${client.pgConfig}" comes without a server`,
    ],
  )
})

test('what is missing is named, with how to get it', async t => {
  await using directory = await temporaryDirectory()
  const top = directory.path
  const failing = async (shim: Shim, message: string, env: NodeJS.ProcessEnv = {}) => {
    assert.deepEqual(await install(shim, [], env), {
      status: 1,
      stdout: '',
      stderr: `pgarchivist: ${message}\n`,
    })
    assert.deepEqual(await readdir(shim.pkglibdir).catch(() => []), [])
  }

  await failing(
    await placePgConfig(join(top, 'old'), { version: '14.20' }),
    'PostgreSQL 14.20: archive modules need PostgreSQL 15 or newer',
  )
  await failing(
    await placePgConfig(join(top, 'headers'), { version: '16.3', includedirServer: '/nowhere/server' }),
    `PostgreSQL 16.3: the server headers are missing ("/nowhere/server/postgres.h"): ${packages.headers(16, '')}`,
  )
  if (cannotCompile(t)) return

  // Only the server's compiler is asked for by a name that cannot be found on the PATH either.
  const shim = await placePgConfig(join(top, 'compiler'), { cc: 'compiler-of-the-server -m64' })
  await failing(shim, `PostgreSQL 17.4: there is no C compiler: ${packages.compiler}`, { PATH: '/nowhere' })
  await failing(shim, 'PostgreSQL 17.4: could not run "/nowhere/cc": No such file or directory', {
    CC: '/nowhere/cc',
  })
  const withoutLibc = await placeProgram(
    join(top, 'without-libc'),
    "echo 'c.h:59:10: fatal error: stdio.h: No such file or directory' >&2; exit 1",
  )
  await failing(shim, `PostgreSQL 17.4: the headers of libc are missing ("stdio.h"): ${packages.compiler}`, {
    CC: withoutLibc,
  })
  const unhappy = await placeProgram(
    join(top, 'unhappy'),
    "echo 'In function ask:' >&2; echo 'x.c:1:2: error: it does not please me' >&2; exit 1",
  )
  await failing(
    shim,
    `PostgreSQL 17.4: "${unhappy}" could not compile the library:\n  x.c:1:2: error: it does not please me`,
    { CC: unhappy },
  )

  const closed = await placePgConfig(join(top, 'closed'))
  await chmod(closed.pkglibdir, 0o555)
  await failing(
    closed,
    `PostgreSQL 17.4: could not write to directory "${closed.pkglibdir}": Permission denied`,
  )
  const gone = await placePgConfig(join(top, 'gone'))
  await rename(gone.pkglibdir, join(top, 'gone/elsewhere'))
  await failing(
    gone,
    `PostgreSQL 17.4: directory "${gone.pkglibdir}" does not exist: install the server first`,
  )
})

test('a pg_config that is none is refused, and the others that are named get their library', async t => {
  if (cannotCompile(t)) return
  await using directory = await temporaryDirectory()
  const top = directory.path
  const shim = await placePgConfig(join(top, 'server'))
  const greets = await placeProgram(join(top, 'greets'), 'echo hello')
  const fails = await placeProgram(join(top, 'fails'), 'exit 3')
  const forgets = await placeProgram(join(top, 'forgets'), "echo 'PostgreSQL 17.4'")
  const named = ['/nowhere/pg_config', greets, fails, forgets, shim.pgConfig]
  const finished = await runOwn(['install', ...named.flatMap(each => ['--pg-config', each])])
  assert.deepEqual(finished, {
    status: 1,
    stdout: `PostgreSQL 17.4: installed "${shim.library}"\n`,
    stderr: [
      'pgarchivist: could not run "/nowhere/pg_config --version": No such file or directory\n',
      `pgarchivist: "${greets}" is not a pg_config: it gives its version as "hello"\n`,
      `pgarchivist: could not run "${fails} --version": it exited with status 3\n`,
      `pgarchivist: "${forgets}" is not a pg_config: it does not tell the directories of its server\n`,
    ].join(''),
  })
})

test("install warns when the server's user can probably not run what the library starts", async t => {
  if (cannotCompile(t)) return
  await using directory = await temporaryDirectory()
  const top = await realpath(directory.path)
  const shim = await placePgConfig(join(top, 'server'))
  await chmod(top, 0o755)
  await privateDirectory(join(top, 'home'))
  const launcher = await placeCheckout(join(top, 'home/pgarchivist'))
  assert.deepEqual(await run(launcher, ['install', '--pg-config', shim.pgConfig]), {
    status: 0,
    stdout: `PostgreSQL 17.4: installed "${shim.library}"\n`,
    stderr: `pgarchivist: warning: only some users may enter "${top}/home"; the server's user has to be able to run "${launcher}"\n`,
  })
})

test('the packages to install are named as the system calls them', () => {
  const told = (osRelease: string, pkglibdir = '/usr/lib/postgresql') => {
    const { compiler, headers } = packagesOf(osRelease)
    return [compiler, headers(17, pkglibdir)]
  }
  const debian = ['run "apt-get install gcc libc6-dev"', 'run "apt-get install postgresql-server-dev-17"']
  assert.deepEqual(told('PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n'), debian)
  assert.deepEqual(told('ID=linuxmint\nID_LIKE="ubuntu debian"\n'), debian)
  assert.deepEqual(told('ID="rocky"\nID_LIKE="rhel centos fedora"\n', '/usr/pgsql-17/lib'), [
    'run "dnf install gcc glibc-devel"',
    'run "dnf install postgresql17-devel"',
  ])
  assert.deepEqual(told('ID=fedora\n', '/usr/lib64/pgsql'), [
    'run "dnf install gcc glibc-devel"',
    'run "dnf install postgresql-server-devel"',
  ])
  assert.deepEqual(told('ID=alpine\n'), ['run "apk add gcc musl-dev"', 'run "apk add postgresql17-dev"'])
  assert.deepEqual(told(''), [
    'install gcc or clang, and the headers of libc',
    'install the package with the server headers of PostgreSQL 17',
  ])
})

test('install and the Makefile for PGXS compile every source that there is', async () => {
  const sources = (await readdir(sourceDirectory)).filter(name => name.endsWith('.c')).toSorted()
  assert.deepEqual(sourceNames.toSorted(), sources)
  const makefile = await readFile(join(sourceDirectory, 'Makefile'), 'utf8')
  const objects = /^OBJS = (.*)$/m.exec(makefile)?.[1]?.split(' ') ?? []
  assert.deepEqual(objects.map(name => name.replace(/\.o$/, '.c')).toSorted(), sources)
})

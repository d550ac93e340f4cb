import assert from 'node:assert/strict'
import { chmod, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, before, test } from 'node:test'
import type { ArchiveModuleCallbacks } from '../src/contract/archive-module.ts'
import type { ArchiveServer } from '../src/contract/archive-server.ts'
import { archiveModuleConformance } from '../src/contract/conformance.ts'
import { ReportedError } from '../src/contract/error-report.ts'
import {
  type BuiltInModules,
  initializeModule,
  loadArchiveModule,
  type ModuleRequest,
} from '../src/host/loader.ts'
import { realFiles } from '../src/system/real-files.ts'
import { realModuleFiles } from '../src/system/real-module-files.ts'
import { becomeUnprivileged } from './support/unprivileged.ts'

// No package.json and no node_modules above it: "anywhere on disk".
let root = ''
before(async () => {
  root = await mkdtemp(join(tmpdir(), 'loader test ')) // the blank is meant: it has to be escaped in a URL
})
after(() => rm(root, { recursive: true, force: true }))

const warnings: string[] = []
process.on('warning', warning => warnings.push(String(warning)))

const goodModule = 'export function _PG_archive_module_init() { return { archive_file_cb: () => true } }\n'
const server = {} as ArchiveServer

async function file(name: string, text: string = goodModule): Promise<string> {
  const path = join(root, name)
  await mkdir(dirname(path), { recursive: true })
  await writeFile(path, text)
  return path
}

function load(name: string, more: Partial<ModuleRequest> = {}) {
  return loadArchiveModule({
    name,
    builtIns: new Map(),
    dynamicLibraryPath: '$libdir',
    dataDirectory: root,
    files: realFiles,
    modules: realModuleFiles,
    ...more,
  })
}

async function fatalOf(
  work: Promise<unknown>,
): Promise<{ errmsg: string; errdetail?: string; errhint?: string }> {
  const error: unknown = await work.then(
    () => assert.fail('it was loaded'),
    (thrown: unknown) => thrown,
  )
  assert.ok(error instanceof ReportedError, String(error))
  assert.equal(error.level, 'FATAL')
  const { errmsg, errdetail, errhint } = error
  return {
    errmsg,
    ...(errdetail === undefined ? {} : { errdetail }),
    ...(errhint === undefined ? {} : { errhint }),
  }
}

test('a built-in name wins over a file of that name', async () => {
  await file('lib/basic_archive.ts', 'throw new Error("the file was loaded")')
  const _PG_archive_module_init = () => ({ archive_file_cb: () => true })
  const builtIns: BuiltInModules = new Map([['basic_archive', async () => ({ _PG_archive_module_init })]])
  const loaded = await load('basic_archive', { builtIns, dynamicLibraryPath: join(root, 'lib') })
  assert.deepEqual(loaded, { source: 'basic_archive', init: _PG_archive_module_init })
})

test('an absolute path is loaded as it is, with blanks, types and no package.json', async () => {
  const path = await file('a module.ts', `const answer: boolean = true as boolean\n${goodModule}`)
  assert.equal((await load(path)).source, path)
})

test('a name with a slash starts in the data directory', async () => {
  const path = await file('modules/relative.ts')
  assert.equal((await load('modules/relative.ts')).source, path)
  assert.equal((await load('./modules/relative.ts')).source, path)
})

for (const suffix of ['.ts', '.mts', '.js', '.mjs']) {
  test(`a path without its suffix ${suffix} is found`, async () => {
    const path = await file(`suffix${suffix.slice(1)}/module${suffix}`)
    await file(`suffix${suffix.slice(1)}/package.json`, '{ "type": "module" }')
    assert.equal((await load(path.slice(0, -suffix.length))).source, path)
  })
}

test('a plain name is looked for in each directory of dynamic_library_path, in order, $libdir left out', async () => {
  const path = await file('second/plain.ts')
  await file('third/plain.ts')
  await mkdir(join(root, 'first'), { recursive: true })
  const directories = [
    '$libdir',
    join(root, 'first'),
    '$libdir/plugins',
    join(root, 'second'),
    join(root, 'third'),
  ]
  assert.equal((await load('plain', { dynamicLibraryPath: directories.join(':') })).source, path)
})

test('a plain name is not looked for in the data directory', async () => {
  await file('unplaced.ts')
  assert.deepEqual(await fatalOf(load('unplaced')), {
    errmsg: 'could not access file "unplaced": No such file or directory',
  })
})

test('a dynamic_library_path that is not one is refused in the words of the server', async () => {
  assert.deepEqual(await fatalOf(load('x', { dynamicLibraryPath: '/lib::/usr' })), {
    errmsg: 'zero-length component in parameter "dynamic_library_path"',
  })
  assert.deepEqual(await fatalOf(load('x', { dynamicLibraryPath: 'modules' })), {
    errmsg: 'component in parameter "dynamic_library_path" is not an absolute path',
  })
})

test('a name that is nothing else is an npm package, as seen from pgarchivist', async () => {
  // commander is installed here and is no archive module, which is what the message then says.
  assert.deepEqual(await fatalOf(load('commander')), {
    errmsg: 'archive modules have to define the symbol _PG_archive_module_init',
  })
})

test('what Node itself brings along is not an npm package', async () => {
  assert.deepEqual(await fatalOf(load('fs')), {
    errmsg: 'could not access file "fs": No such file or directory',
  })
})

test('a package with a scope is found in spite of its slash', async () => {
  const path = await file('packages/scoped.ts')
  const modules = {
    ...realModuleFiles,
    packageFile: (name: string) => (name === '@acme/archive' ? path : undefined),
  }
  assert.equal((await load('@acme/archive', { modules })).source, path)
})

test('TypeScript inside node_modules is loaded too, with what it imports', async () => {
  await file('node_modules/acme/package.json', '{ "name": "acme" }')
  await file('node_modules/acme/yes.ts', 'export const yes: boolean = true')
  const text = `import { yes } from './yes.ts'
export const _PG_archive_module_init = () => ({ archive_file_cb: (): boolean => yes })`
  const { init } = await load(await file('node_modules/acme/index.ts', text))
  const callbacks = await init(server)
  assert.equal(
    await callbacks.archive_file_cb({ private_data: undefined }, '', '', { signal: AbortSignal.abort() }),
    true,
  )
})

test('a .ts file is an ES module, also where package.json says commonjs', async () => {
  await file('commonjs/package.json', '{ "type": "commonjs" }')
  const path = await file('commonjs/module.ts')
  assert.equal((await load(path)).source, path)
})

test('a module anywhere on disk can import values and types from pgarchivist', async () => {
  const text = `import { type ArchiveServer, BGW_NEVER_RESTART } from 'pgarchivist'
export function _PG_archive_module_init(server: ArchiveServer) {
  server.RegisterBackgroundWorker({ bgw_name: 'w', bgw_function_name: 'f', bgw_restart_time: BGW_NEVER_RESTART })
  return { archive_file_cb: () => true }
}`
  const { init } = await load(await file('imports.ts', text))
  const registered: unknown[] = []
  const register = { RegisterBackgroundWorker: (worker: unknown) => registered.push(worker) }
  await init(register as Partial<ArchiveServer> as ArchiveServer)
  assert.deepEqual(registered, [
    { bgw_name: 'w', bgw_function_name: 'f', bgw_restart_time: 'BGW_NEVER_RESTART' },
  ])
})

test('a module anywhere on disk can import the conformance suite', async () => {
  const text = `import { archiveModuleConformance } from 'pgarchivist/conformance'
export const _PG_archive_module_init = archiveModuleConformance`
  const { init } = await load(await file('suite.ts', text))
  assert.equal(init, archiveModuleConformance)
})

test('a file that is not there', async () => {
  assert.deepEqual(await fatalOf(load('nosuchlib')), {
    errmsg: 'could not access file "nosuchlib": No such file or directory',
  })
  assert.deepEqual(await fatalOf(load('/nosuch/lib.ts')), {
    errmsg: 'could not access file "/nosuch/lib.ts": No such file or directory',
  })
  await symlink('circle.ts', join(root, 'circle.ts'))
  assert.deepEqual(await fatalOf(load('./circle.ts')), {
    errmsg: `could not access file "${root}/circle.ts": Too many levels of symbolic links`,
  })
})

test('a directory and a device are not modules', async () => {
  assert.deepEqual(await fatalOf(load(root)), { errmsg: `could not load library "${root}": Is a directory` })
  assert.deepEqual(await fatalOf(load('/dev/zero')), {
    errmsg: 'could not load library "/dev/zero": not a regular file',
  })
})

test('a file that may not be read', async () => {
  const path = await file('secret.ts')
  await chmod(path, 0)
  await chmod(root, 0o755)
  const becomeRoot = becomeUnprivileged()
  const fatal = await fatalOf(load(path)).finally(becomeRoot)
  assert.deepEqual(fatal, { errmsg: `could not load library "${path}": ${path}: Permission denied` })
})

const inConfig = ' With "erasableSyntaxOnly" in tsconfig.json the compiler refuses it too.'
const unstrippable: [name: string, text: string, problem: string, hint: string | undefined][] = [
  [
    'enum',
    'const a = 1\n\nexport enum Color { Red }',
    '3: TypeScript enum is not supported in strip-only mode',
    `Write a constant object ("const Color = { red: 1 } as const") or a union of literal types.${inConfig}`,
  ],
  [
    'namespace',
    'namespace X { export const y = 1 }',
    '1: TypeScript namespace declaration is not supported in strip-only mode',
    `Write the exports of a file of its own.${inConfig}`,
  ],
  [
    'parameter property',
    'export class A {\n  constructor(private x: number) {}\n}',
    '2: TypeScript parameter property is not supported in strip-only mode',
    `Declare the field in the class and assign it in the constructor.${inConfig}`,
  ],
  [
    'decorator',
    'function d(x: unknown) {}\n/** @d is a name here */\n@d\nexport class A {}',
    '3: TypeScript decorator is not supported in strip-only mode',
    `Call the function on the class yourself.${inConfig}`,
  ],
  [
    'import =',
    "import fs = require('node:fs')",
    '1: TypeScript import equals declaration is not supported in strip-only mode',
    `Write "import name from 'module'".${inConfig}`,
  ],
  [
    'export =',
    'export = 5',
    '1: TypeScript export assignment is not supported in strip-only mode',
    `Write "export function" or "export const".${inConfig}`,
  ],
  [
    'angle-bracket assertion',
    'const a = 1\nexport const b = <number>a',
    "2: The angle-bracket syntax for type assertions, `<T>expr`, is not supported in type strip mode. Instead, use the 'as' syntax: `expr as T`.",
    `Write "value as Type".${inConfig}`,
  ],
  ['syntax error', 'const a = 1\nconst b = = 3', '2: Expression expected', undefined],
  [
    'error that only the engine sees',
    'const a: number = 1\n\n\nconst a = 2',
    "4: Identifier 'a' has already been declared",
    undefined,
  ],
  [
    'type imported as a value',
    "\nimport { ArchiveServer } from 'pgarchivist'",
    "2: The requested module 'pgarchivist' does not provide an export named 'ArchiveServer'",
    'If "ArchiveServer" is a type, write "import type".',
  ],
  [
    'import without the suffix',
    "\n\nimport { x } from './helper'",
    '3: cannot find "./helper"',
    'Write "./helper.ts", as the file is named.',
  ],
  [
    'import with the suffix that the file would have after a build',
    "import { x } from './helper.js'",
    '1: cannot find "./helper.js"',
    'Write "./helper.ts", as the file is named.',
  ],
  ['package that is not installed', "import x from 'nosuch'", '1: cannot find "nosuch"', undefined],
]
for (const [name, text, problem, errhint] of unstrippable) {
  test(`the line and the remedy are named: ${name}`, async () => {
    await file('unstrippable/helper.ts', 'export const x = 1')
    const path = await file(`unstrippable/${name}.ts`, text)
    assert.deepEqual(await fatalOf(load(path)), {
      errmsg: `could not load library "${path}": ${path}:${problem}`,
      ...(errhint === undefined ? {} : { errhint }),
    })
  })
}

test('the fault is named where it is: in an imported file', async () => {
  const helper = await file('faulty/helper.ts', '\n\n\nenum A { b }')
  const path = await file('faulty/module.ts', `import './helper.ts'\n${goodModule}`)
  assert.deepEqual(await fatalOf(load(path)), {
    errmsg: `could not load library "${path}": ${helper}:4: TypeScript enum is not supported in strip-only mode`,
    errhint: `Write a constant object ("const Color = { red: 1 } as const") or a union of literal types.${inConfig}`,
  })
})

test('a syntax error in JavaScript has its line too', async () => {
  const path = await file('wrong.mjs', 'const a = 1\nconst b = = 3\n')
  assert.deepEqual(await fatalOf(load(path)), {
    errmsg: `could not load library "${path}": ${path}:2: Unexpected token '='`,
  })
})

test('a file with another suffix is not a module', async () => {
  const so = await file('basic_archive.so', '\x7fELF')
  assert.deepEqual(await fatalOf(load(so)), {
    errmsg: `could not load library "${so}": ${so}: unknown file extension ".so"`,
    errhint: 'An archive module is a .ts, .mts, .js or .mjs file.',
  })
  const tsx = await file('page.tsx', 'export const x = <p/>')
  assert.deepEqual(await fatalOf(load(tsx)), {
    errmsg: `could not load library "${tsx}": ${tsx}: unknown file extension ".tsx"`,
    errhint: 'Name it ".ts" and write no JSX in it.',
  })
})

test('a module that throws while it is evaluated says so in its own words, with the cause', async () => {
  const path = await file('throws.ts', 'throw new Error("boom", { cause: new Error("no ticket") })')
  assert.deepEqual(await fatalOf(load(path)), { errmsg: 'boom', errdetail: 'Caused by: no ticket' })
  const parses = await file('parses.ts', 'JSON.parse("{")')
  assert.match((await fatalOf(load(parses))).errmsg, /^Expected property name or '}' in JSON/)
})

test('a module without the init function, or with something else under its name', async () => {
  const errmsg = 'archive modules have to define the symbol _PG_archive_module_init'
  assert.deepEqual(await fatalOf(load(await file('empty.ts', ''))), { errmsg })
  assert.deepEqual(await fatalOf(load(await file('five.ts', 'export const _PG_archive_module_init = 5'))), {
    errmsg,
  })
})

const initializations: [name: string, init: () => unknown, errmsg: string][] = [
  ['nothing', () => undefined, 'archive modules must register an archive callback'],
  ['null', () => null, 'archive modules must register an archive callback'],
  ['a function', () => () => true, 'archive modules must register an archive callback'],
  ['no archive_file_cb', () => ({ startup_cb() {} }), 'archive modules must register an archive callback'],
  ['a promise of nothing', async () => {}, 'archive modules must register an archive callback'],
  [
    'a startup_cb that is a number',
    () => ({ archive_file_cb() {}, startup_cb: 5 }),
    'invalid "startup_cb" of archive module: expected a function, got a number',
  ],
  [
    'an archive_ahead that is a string',
    () => ({ archive_file_cb() {}, archive_ahead: 'yes' }),
    'invalid "archive_ahead" of archive module: expected a boolean, got a string',
  ],
]
for (const [name, init, errmsg] of initializations) {
  test(`an init function that returns ${name} is FATAL`, async () => {
    assert.deepEqual(await fatalOf(initializeModule(init as () => ArchiveModuleCallbacks, server)), {
      errmsg,
    })
  })
}

test('an init function may be asynchronous, and its callbacks may be methods', async () => {
  class Callbacks {
    archive_file_cb() {
      return true
    }
  }
  const callbacks = await initializeModule(async () => new Callbacks(), server)
  assert.ok(callbacks instanceof Callbacks)
})

test('an ERROR in the init function is FATAL, a PANIC stays one', async () => {
  const report = { errmsg: 'no', errdetail: 'Really.', errhint: 'Stop.' }
  const error = () => {
    throw new ReportedError('ERROR', report)
  }
  assert.deepEqual(await fatalOf(initializeModule(error, server)), report)
  const panic = new ReportedError('PANIC', report)
  const rejected = initializeModule(() => Promise.reject(panic), server)
  await assert.rejects(rejected, thrown => thrown === panic)
})

test('none of this has printed a warning', async () => {
  await new Promise(setImmediate) // Node emits warnings with the next tick
  assert.deepEqual(warnings, [])
})

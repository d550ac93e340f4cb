import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readdir, readFile, stat } from 'node:fs/promises'
import path from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const root = fileURLToPath(new URL('..', import.meta.url))
const read = (name: string) => readFile(path.join(root, name), 'utf8')

async function pages(): Promise<string[]> {
  const names = await readdir(path.join(root, 'docs'), { recursive: true })
  return [
    'README.md',
    'ARCHITECTURE.md',
    'CONTRIBUTING.md',
    'CHANGELOG.md',
    ...names.map(name => `docs/${name}`),
  ].filter(name => name.endsWith('.md'))
}

test('links between pages lead somewhere', async () => {
  for (const page of await pages()) {
    for (const [, target = ''] of (await read(page)).matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g)) {
      const file = path.join(root, path.dirname(page), target)
      await assert.doesNotReject(stat(file), `${page} links to ${target}, which does not exist`)
    }
  }
})

test('the manual for modules names every member of the contract', async () => {
  const manual = await read('docs/modules.md')
  for (const file of ['archive-server.ts', 'archive-module.ts']) {
    const text = await read(`src/contract/${file}`)
    const members = [...text.matchAll(/^ {2}(?:readonly )?([A-Za-z_]+)[?(:<]/gm)].map(match => match[1] ?? '')
    assert.ok(members.length > 4, `found only ${members.join(', ')} in ${file}`)
    const untold = members.filter(member => !manual.includes(member))
    assert.deepEqual(untold, [], `docs/modules.md does not mention members of ${file}`)
  }
})

test('every script that a page names exists', async () => {
  const { scripts } = JSON.parse(await read('package.json')) as { scripts: Record<string, string> }
  for (const page of await pages()) {
    for (const [, name = ''] of (await read(page)).matchAll(/npm run ([a-z]+)/g)) {
      assert.ok(Object.hasOwn(scripts, name), `${page} names "npm run ${name}", which does not exist`)
    }
  }
})

test('--help shows the commands and options that the pages use', async () => {
  const help = async (...args: string[]) =>
    (await promisify(execFile)(path.join(root, 'bin/pgarchivist'), [...args, '--help'])).stdout
  assert.match(await help(), /^ {2}archiver .*\n/m)
  assert.match(await help(), /^ {2}info .*\n/m)
  const options = `${await help('archiver')}${await help('info')}`
  for (const page of ['README.md', 'docs/restore.md', 'docs/modules.md']) {
    for (const [command] of (await read(page)).matchAll(/^\s*(bin\/)?pgarchivist .*$/gm)) {
      for (const [option] of command.matchAll(/(?<= )--?[a-z-]+/gi)) {
        assert.ok(options.includes(option), `${page} uses ${option} in "${command.trim()}"`)
      }
    }
  }
})

test('the page of archive-push has its options, their variables and its exit statuses', async () => {
  const page = await read('docs/archive-push.md')
  const launcher = path.join(root, 'bin/pgarchivist')
  const { stdout } = await promisify(execFile)(launcher, ['archive-push', '--help'])
  const options = [...stdout.matchAll(/^ {2}(--[a-z-]+) </gm)].map(match => match[1] ?? '')
  assert.ok(options.length > 4, `found only ${options.join(', ')}`)
  for (const option of options) {
    const variable = `PGARCHIVIST_${option.slice(2).replaceAll('-', '_').toUpperCase()}`
    assert.ok(
      page.includes(`| \`${variable}\` | \`${option}\` |`),
      `docs/archive-push.md does not list ${option}`,
    )
  }
  const [, statuses = ''] =
    /statusOf[^{]*\{([^}]*)\}/.exec(await read('src/cli/archive-push-command.ts')) ?? []
  const numbers = [...statuses.matchAll(/: (\d+),/g)].map(match => match[1] ?? '')
  assert.equal(numbers.length, 6)
  for (const status of ['0', ...numbers]) {
    assert.ok(page.includes(`\n| ${status} | `), `docs/archive-push.md does not list status ${status}`)
  }
})

test('the page for operators has every line that the bridge may write to the log', async () => {
  const page = await read('docs/operators.md')
  const files = [
    ...['bridge.ts', 'declaration-refusal.ts', 'declaring-guc-registry.ts'].map(name => `src/bridge/${name}`),
    ...['src/bridge/pg/pgarchivist.c', 'src/cli/bridge-channel.ts'],
  ]
  const lines: string[] = []
  for (const file of files) {
    const text = await read(file)
    const inC = text.matchAll(/(?:\berrmsg|\bnode_end)\("((?:[^"\\]|\\.)*)"/g)
    const inTypeScript = text.matchAll(/\berrmsg(?:: | = |:\n *)[`']([^`\n]*)[`'],?/g)
    for (const [, line = ''] of [...inC, ...inTypeScript]) lines.push(line)
  }
  assert.ok(lines.length > 20, `found only ${lines.join(', ')}`)
  const untold = lines.filter(line => {
    // What is the same in each such line.
    const parts = line.replaceAll('\\"', '"').split(/%[a-z]+|\$\{[^}]*\}/)
    const longest = parts.toSorted((a, b) => b.length - a.length)[0] ?? ''
    return !page.includes(longest.trim().replaceAll(/^"|"$/g, '').trim())
  })
  assert.deepEqual(untold, [], 'docs/operators.md does not say what to do about these')
})

// Compiles the hashes of src/repository/codec/xxhash.assembly.ts. To be run after a change there; a test tells if it was not.

import { writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { main as compile } from 'assemblyscript/asc'

const root = resolve(import.meta.dirname, '..')
const directory = 'src/repository/codec'

/** One for the state, and one for the window: larger ones are no faster. What never grows takes no more than it has to. */
const pages = '2'

/** What xxhash-module.ts has to be. */
export async function xxhashModuleText(): Promise<string> {
  const lines = [
    '// Made by scripts/build-xxhash.ts from xxhash.assembly.ts: do not edit.',
    '',
    '/** WebAssembly, in base64. */',
    'export const xxhashModules = {',
    '  vectors:',
    `    '${await compiled('--enable', 'simd')}',`,
    '  /** For processors without the vectors of WebAssembly: x86_64 before SSE 4.1, or a virtual one that hides them. */',
    '  plain:',
    `    '${await compiled('--disable', 'simd')}',`,
    '}',
    '',
  ]
  return lines.join('\n')
}

async function compiled(...features: string[]): Promise<string> {
  let base64 = ''
  let complaints = ''
  const { error } = await compile(
    [
      'xxhash.assembly.ts',
      ...['--baseDir', join(root, directory), '--outFile', 'xxhash.wasm', '-O3', '--noAssert'],
      ...['--runtime', 'stub', '--initialMemory', pages, '--maximumMemory', pages],
      ...features,
    ],
    {
      writeFile: (_name, contents) => {
        base64 = Buffer.from(contents).toString('base64')
      },
      stderr: {
        write: text => {
          complaints += String(text)
        },
      },
    },
  )
  // Of warnings it only tells.
  if (error !== null || complaints !== '')
    throw new Error(`xxhash.assembly.ts: ${complaints}`, { cause: error })
  return base64
}

if (import.meta.main) await writeFile(join(root, directory, 'xxhash-module.ts'), await xxhashModuleText())

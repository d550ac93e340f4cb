// What the codec costs by itself: reads the files of a directory, digests, compresses and perhaps encrypts them, several
// at once as archiving does, and stores nothing. Prints what that has cost. Arguments: directory, name of the first file,
// level, files at once, recipients.

import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { encode } from '../src/repository/codec/encode.ts'
import { realFiles } from '../src/system/real-files.ts'

export interface CodecCost {
  wallSeconds: number
  cpuSeconds: number
  megabytes: number
}

const [directory = '', first = '', level = '', filesAtOnce = '', ...recipients] = process.argv.slice(2)
const names = (await readdir(directory)).filter(name => name >= first).toSorted()
// What is loaded and set up with the first file is not the codec's cost.
await encodeFile(first)
const startedAt = performance.now()
const before = process.cpuUsage()
const waiting = names.values()
const bytes = await Promise.all(
  Array.from({ length: Number(filesAtOnce) }, async () => {
    let sum = 0
    for (const name of waiting) sum += await encodeFile(name)
    return sum
  }),
)
const { user, system } = process.cpuUsage(before)
const cost: CodecCost = {
  wallSeconds: (performance.now() - startedAt) / 1_000,
  cpuSeconds: (user + system) / 1e6,
  megabytes: bytes.reduce((sum, each) => sum + each, 0) / 1e6,
}
console.log(JSON.stringify(cost))

async function encodeFile(name: string): Promise<number> {
  await using file = await realFiles.open(join(directory, name), 'read')
  const { size: plaintextLength } = await file.stat()
  const options = { plaintextLength, level: Number(level), recipients }
  return (await encode(file, options, async () => {})).storedLength
}

// A process that archives the WAL files that it is told, when it is told to begin: DATA REPOSITORY NAME… [--memory]

import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { realFiles } from '../../src/system/real-files.ts'
import { archiveOptions, archivingServer } from './repository-stage.ts'

const [data = '', root = '', ...rest] = process.argv.slice(2)
const names = rest.filter(each => each !== '--memory')
const { archive } = archivingServer({ files: realFiles, data, root, newId: randomUUID })

process.send?.('ready')
await once(process, 'message')
process.disconnect()
for (const name of names) {
  // Segments of any size, as of a cluster that has not told its own.
  const cluster = { ...archiveOptions.cluster, walSegmentBytes: undefined }
  const outcome = await archive(name, { cluster }).catch((thrown: unknown) => `failed: ${String(thrown)}`)
  console.log(`${name} ${outcome}`)
}
if (process.argv.includes('--memory')) console.log(`${process.resourceUsage().maxRSS} kB`)

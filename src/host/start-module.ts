import type { ArchiveModuleInit } from '../contract/archive-module.ts'
import type { BackgroundWorker } from '../contract/background-worker.ts'
import type { Log } from '../contract/error-report.ts'
import { createArchiveServer, type ServerFacts } from './archive-server.ts'
import type { GucRegistry } from './guc-registry.ts'
import { initializeModule } from './loader.ts'
import { ModuleHost } from './module-host.ts'

export interface ModuleStart {
  init: ArchiveModuleInit
  facts: ServerFacts
  gucs: GucRegistry
  registerWorker: (worker: BackgroundWorker) => void
  log: Log
}

/** From a loaded module to one that can be given files. */
export async function startModule({
  init,
  facts,
  gucs,
  registerWorker,
  log,
}: ModuleStart): Promise<ModuleHost> {
  const handle = createArchiveServer({ facts, gucs, registerWorker, log })
  const callbacks = await initializeModule(init, handle.server)
  handle.throwIfEnding()
  return ModuleHost.start(callbacks, handle, log)
}

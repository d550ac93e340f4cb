/** The program that runs in the process of a background worker. */
import { runBackgroundWorker } from '../host/background-worker-main.ts'
import { realModuleFiles } from '../system/real-module-files.ts'
import { connectToParent } from '../system/real-processes.ts'
import { builtInModules } from './built-in-modules.ts'

const uncaught = Promise.withResolvers<never>()
uncaught.promise.catch(() => {}) // it may come before anybody waits for it, and is not lost
process.on('uncaughtException', uncaught.reject)

const system = { builtIns: builtInModules, modules: realModuleFiles, uncaught: uncaught.promise }
// A worker ends when its function does, whatever timers and sockets it leaves.
process.exit(await runBackgroundWorker(connectToParent(), system))

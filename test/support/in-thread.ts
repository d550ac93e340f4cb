import { Worker } from 'node:worker_threads'

interface Told {
  result?: unknown
  error?: { name: string; message: string; stack: string | undefined }
}

const program = `
const { parentPort, workerData: { module, name, args } } = require('node:worker_threads')
import(module).then(exports => exports[name](...args)).then(
  result => parentPort.postMessage({ result }),
  error => parentPort.postMessage({ error: { name: error.name, message: error.message, stack: error.stack } }))
`

/**
 * Calls an exported function of a module in a thread of its own. Node's test runner watches every promise that is made in
 * the thread of a test, which takes a simulation longer than everything else that it does.
 */
export async function inThread<Args extends unknown[], Result>(
  module: URL,
  call: (...args: Args) => Promise<Result>,
  ...args: Args
): Promise<Result> {
  const { promise, resolve, reject } = Promise.withResolvers<Told>()
  const worker = new Worker(program, {
    eval: true,
    workerData: { module: module.href, name: call.name, args },
  })
  worker.once('message', resolve).once('error', reject)
  worker.once('exit', status => reject(new Error(`the thread ended with ${status}`)))
  const { result, error } = await promise
  await worker.terminate()
  if (error === undefined) return result as Result
  throw Object.assign(new Error(error.message), error)
}

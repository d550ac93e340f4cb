import type { Files } from '../system/files.ts'
import { identityOf, isRunning, type ProcessIdentity } from '../system/process-identity.ts'
import { isMissing } from '../system/system-error.ts'

const postmasterStateLine = 7
const stopping = 'stopping'

/** A server that recovers from the archive, as its data directory tells. */
export class Recovery {
  readonly #files: Files
  readonly #dataDirectory: string
  readonly #postmaster: ProcessIdentity

  private constructor(files: Files, dataDirectory: string, postmaster: ProcessIdentity) {
    this.#files = files
    this.#dataDirectory = dataDirectory
    this.#postmaster = postmaster
  }

  /** `undefined` where no server is in recovery. */
  static async of(files: Files, dataDirectory: string): Promise<Recovery | undefined> {
    const pid = await postmasterPid(files, dataDirectory)
    const postmaster = pid === undefined ? undefined : await identityOf(files, pid)
    if (postmaster === undefined) return undefined
    const recovery = new Recovery(files, dataDirectory, postmaster)
    return (await recovery.look()) === 'goes on' ? recovery : undefined
  }

  /**
   * `gone`: the server stops or has stopped, and from now on the data directory may belong to somebody else, such as
   * pg_rewind, which fails when a file vanishes under its hands. `over`: it runs, and has all that it wanted.
   */
  async look(): Promise<'goes on' | 'over' | 'gone'> {
    const pid = await postmasterPid(this.#files, this.#dataDirectory)
    if (pid !== this.#postmaster.pid || !(await isRunning(this.#files, this.#postmaster))) return 'gone'
    const wants = await Promise.all(['recovery.signal', 'standby.signal'].map(name => this.#isThere(name)))
    return wants.includes(true) ? 'goes on' : 'over'
  }

  async #isThere(name: string): Promise<boolean> {
    return await this.#files.stat(`${this.#dataDirectory}/${name}`).then(
      () => true,
      thrown => !isMissing(thrown),
    )
  }
}

/** Of a server that runs and is not about to stop. */
async function postmasterPid(files: Files, dataDirectory: string): Promise<number | undefined> {
  const text = await files.readText(`${dataDirectory}/postmaster.pid`).catch(() => '')
  const lines = text.split('\n')
  const pid = Number.parseInt(lines[0] ?? '', 10)
  return pid > 0 && lines[postmasterStateLine]?.trim() !== stopping ? pid : undefined
}

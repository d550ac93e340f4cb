import { chmod, mkdir, mkdtemp, readdir, readFile, realpath, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

/** A directory of our own for as long as something is tried out in it. */
export class ScratchDirectory implements AsyncDisposable {
  readonly path: string

  private constructor(path: string) {
    this.path = path
  }

  static async create(prefix: string): Promise<ScratchDirectory> {
    return new ScratchDirectory(await realpath(await mkdtemp(join(tmpdir(), prefix))))
  }

  /** Writes a file, directories above it included, and gives its absolute path. */
  async write(name: string, content: Uint8Array): Promise<string> {
    const path = join(this.path, name)
    await mkdir(dirname(path), { recursive: true })
    await writeFile(path, content)
    return path
  }

  async makeDirectory(name: string): Promise<string> {
    const path = join(this.path, name)
    await mkdir(path, { recursive: true })
    return path
  }

  read(name: string): Promise<Uint8Array> {
    return readFile(join(this.path, name))
  }

  /** What changes when a file is written to, moved or given other permissions. */
  async traits(name: string): Promise<string> {
    const { ino, size, mode, mtimeNs } = await stat(join(this.path, name), { bigint: true })
    return [ino, size, mode, mtimeNs].join(' ')
  }

  async remove(name: string): Promise<void> {
    await rm(join(this.path, name), { recursive: true })
  }

  /** Takes all permissions from a file. Returns whether that keeps us from reading it; root it does not. */
  async forbid(name: string): Promise<boolean> {
    const path = join(this.path, name)
    await chmod(path, 0)
    return readFile(path).then(
      () => false,
      () => true,
    )
  }

  /** Makes it the working directory until it is disposed of. */
  enter(): Disposable {
    const before = process.cwd()
    process.chdir(this.path)
    return { [Symbol.dispose]: () => process.chdir(before) }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.path, { recursive: true, force: true })
  }
}

const closingPatienceMs = 2_000
const closingIntervalMs = 20
const settledIntervals = 5

/**
 * How much this process holds open: timers, sockets, descriptors. What is being closed gets a moment for that: until
 * no more than `expected` is open, or where nothing is expected, until the number stays the same.
 */
export async function openResources(expected?: number): Promise<number> {
  let count = await countOpen()
  let intervalsTheSame = 0
  for (let waitedMs = 0; waitedMs < closingPatienceMs; waitedMs += closingIntervalMs) {
    if (expected === undefined ? intervalsTheSame >= settledIntervals : count <= expected) break
    await sleep(closingIntervalMs)
    const countBefore = count
    count = await countOpen()
    intervalsTheSame = count === countBefore ? intervalsTheSame + 1 : 0
  }
  return count
}

async function countOpen(): Promise<number> {
  const descriptors = await readdir('/proc/self/fd').catch(() => [])
  return descriptors.length + process.getActiveResourcesInfo().length
}

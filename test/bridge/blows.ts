import { chmod, copyFile, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { checkout, giveAway } from '../support/unprivileged.ts'
import { type BridgedServer, writeFor } from './bridged-server.ts'
import { oneOf, type Random } from './random.ts'
import { type OwnBlow, ownBlows } from './storm-module.ts'

export type Blow = (typeof blows)[number]

export const blows = [
  'killed',
  'stopped',
  'stopped for a moment',
  'blocked',
  'ended by the module',
  'silent',
  'failing',
  'replaced by a liar',
  'robbed of its keeper',
  'kept by a stopped keeper',
] as const

// Lies about the protocol, which are all found out. None of them is about whether a file is archived: an end that says
// so, and has not done it, is believed.
const lies = [
  'speaks another version',
  'sends garbage',
  'sends zeros',
  'sends a length of 2147483647',
  'sends an unknown type',
  'sends a byte too many',
  'sends half a frame and is silent',
  'sends half a frame and ends',
  'is ready twice',
  'answers before it is asked',
  'declares nonsense',
  'declares 2147483647 options',
  'does not read',
  'answers a request that comes later',
  'answers a negative request',
  'answers for another file',
  'answers for no file',
  'answers for a longer name',
  'answers for a shorter name',
  'answers with neither true nor false',
  'answers with the answer to a check',
  'answers twice',
  'answers and is ready again',
  'answers with half a frame and is silent',
  'answers with half a frame and ends',
  'does not answer',
] as const

/** Deals blows to the process beside the archiver. */
export class Blows {
  readonly #bridged: BridgedServer
  readonly #random: Random
  readonly dealt = new Map<Blow, number>()

  private constructor(bridged: BridgedServer, random: Random) {
    this.#bridged = bridged
    this.#random = random
  }

  /** Puts itself where the server looks for Node, to start a liar in its place now and then. */
  static async prepare(bridged: BridgedServer, random: Random): Promise<Blows> {
    const { root } = bridged.places
    const node = join(await checkout(), `node_modules/node-linux-${process.arch}/bin/node`)
    const liar = join(root, 'liar.ts')
    await copyFile(join(import.meta.dirname, '../protocol/liar.ts'), liar)
    await giveAway(liar)
    const program = join(root, 'node')
    // Each lie is told by one process.
    await writeFor(
      program,
      `#!/bin/sh
[ "$1" = --version ] && exec "${node}" --version
mv "${root}/lie" "${root}/scenario" 2>/dev/null && exec "${node}" "${liar}" "${root}"
exec "${node}" "$@"
`,
    )
    await chmod(program, 0o700)
    await bridged.postgres.configure({ 'pgarchivist.node': program })
    return new Blows(bridged, random)
  }

  /** Returns which one it was. */
  async deal(): Promise<Blow> {
    const blow = oneOf(blows, this.#random)
    if (await this.#strike(blow)) this.dealt.set(blow, (this.dealt.get(blow) ?? 0) + 1)
    return blow
  }

  /** What has not been taken yet is taken back. */
  async end(): Promise<void> {
    await this.#bridged.endTrouble()
    await rm(join(this.#bridged.places.root, 'lie'), { force: true })
  }

  /** The lies that were told. */
  async lies(): Promise<string[]> {
    const deeds = await readFile(join(this.#bridged.places.root, 'deeds'), 'utf8').catch(() => '')
    return deeds.split('\n').flatMap(line => /^(.*) \d+ starts$/.exec(line)?.[1] ?? [])
  }

  async text(): Promise<string> {
    const told = await this.lies()
    const counts = Array.from(this.dealt, ([blow, count]) => `${count} × ${blow}`).join(', ')
    return `${counts}; ${told.length} lies of ${new Set(told).size} kinds were told`
  }

  /** False when there was nobody to be struck. */
  async #strike(blow: Blow): Promise<boolean> {
    if (isOwn(blow)) {
      await writeFor(this.#bridged.places.trouble, blow)
      return true
    }
    const node = await this.#bridged.findNode()
    if (node === undefined) return false
    try {
      switch (blow) {
        case 'stopped':
          return process.kill(node, 'SIGSTOP')
        case 'stopped for a moment':
          process.kill(node, 'SIGSTOP')
          await sleep(300)
          return process.kill(node, 'SIGCONT')
        case 'robbed of its keeper':
        case 'kept by a stopped keeper': {
          const keeper = await this.#bridged.findKeeper(node)
          if (keeper === undefined) return false
          return process.kill(keeper, blow === 'robbed of its keeper' ? 'SIGKILL' : 'SIGSTOP')
        }
        case 'replaced by a liar':
          await writeFor(join(this.#bridged.places.root, 'lie'), oneOf(lies, this.#random))
          return process.kill(node, 'SIGKILL')
        case 'killed':
          return process.kill(node, 'SIGKILL')
        default:
          return blow satisfies never
      }
    } catch {
      // It has ended by itself meanwhile.
      return false
    }
  }
}

function isOwn(blow: Blow): blow is Blow & OwnBlow {
  return blow in ownBlows
}

// One machine with several repositories that go away and come back, a server that archives to them and is killed now and
// then, files that are recycled as soon as the server may do so, somebody who reads, and catching up in between.

import { catchUp } from '../../src/repository/catch-up.ts'
import { RepositoryError } from '../../src/repository/repository-error.ts'
import type { RepositorySet } from '../../src/repository/repository-set.ts'
import { SeveralStage, wal } from '../support/several-stage.ts'
import { anySystemIdentifier } from '../support/wal-segment.ts'
import { BrokenPromise } from './judge.ts'
import { contentOfObject } from './repository-codec.ts'

const rounds = 40

export interface SeveralStormOptions {
  seed: number
  /** What may be changed in a set before it is used, to see whether the storm notices. */
  spoil?: (set: RepositorySet) => RepositorySet
}

export interface SeveralStormStory {
  archived: number
  refused: number
  kills: number
  outages: number
  copied: number
}

export async function severalStorm({
  seed,
  spoil = set => set,
}: SeveralStormOptions): Promise<SeveralStormStory> {
  const stage = new SeveralStage({ seed, count: 2 + (seed % 2) })
  const { random, clock, disk, roots } = stage
  const quorum = random.pick([0, 1, 2])
  const needed = quorum === 0 ? roots.length : quorum
  const story: SeveralStormStory = { archived: 0, refused: 0, kills: 0, outages: 0, copied: 0 }
  const contents = new Map<string, string>()
  const acknowledged = new Set<string>()
  const pending = new Set<string>()
  const seen = new Map<string, Uint8Array>()
  // Where an fsync may have failed: then an object is written once more, with the same content at a later time.
  const wereAway = new Set<string>()
  let process = 0
  /** The process that does so. */
  let catchingUp: number | undefined
  let set = spoil(stage.set(quorum))
  let number = 1
  stage.delayMs = () => random.pick([0, 0, 0, 0.1, 1])

  const fail = (text: string): never => {
    throw new BrokenPromise(`seed ${seed}: ${text}`)
  }
  const right = (root: string, name: string) => {
    const object = stage.object(root, name)
    const content = object && contentOfObject(object, name)
    return content !== undefined && Buffer.from(content).toString() === contents.get(name)
  }
  const look = () => {
    for (const root of roots) {
      for (const name of contents.keys()) {
        const object = stage.object(root, name)
        if (object === undefined) continue
        if (!right(root, name)) fail(`"${root}" has something else as "${name}"`)
        const before = seen.get(`${root} ${name}`)
        if (before !== undefined && !Buffer.from(before).equals(object) && !wereAway.has(root))
          fail(`"${name}" in "${root}" was overwritten`)
        seen.set(`${root} ${name}`, object)
      }
    }
    for (const name of acknowledged) {
      const count = roots.filter(root => right(root, name)).length
      if (count < needed) fail(`"${name}" was acknowledged, and is in ${count} of ${needed}`)
    }
  }
  const archive = async (name: string) => {
    const mine = process
    try {
      await stage.archive(set, name)
      if (mine !== process) return
      acknowledged.add(name)
      pending.delete(name)
      story.archived++
      look()
      // The server takes the file for something else at once.
      stage.put(name, `recycled ${random.integer(0, 1_000)}`.padEnd(contents.get(name)?.length ?? 0))
    } catch (thrown) {
      if (thrown instanceof BrokenPromise) throw thrown
      if (mine !== process) return
      if (!(thrown instanceof RepositoryError)) fail(`archiving threw ${String(thrown)}`)
      story.refused++
    }
  }
  const pass = async () => {
    const mine = process
    catchingUp = mine
    const report = await catchUp({
      repositories: stage.repositories('catch-up'),
      systemIdentifier: anySystemIdentifier,
      filesAtOnce: 2,
    }).catch((thrown: unknown) => {
      if (mine === process && !(thrown instanceof RepositoryError))
        fail(`catching up threw ${String(thrown)}`)
      return undefined
    })
    if (catchingUp === mine) catchingUp = undefined
    if (report === undefined || mine !== process) return undefined
    if (report.differing.count > 0) fail(`other content: ${report.differing.shown.join()}`)
    story.copied += report.repositories.reduce((sum, each) => sum + each.copied, 0)
    return report
  }
  const read = async () => {
    const name = random.pick([...contents.keys(), '0000FFFF.history'])
    const before = roots.filter(root => right(root, name)).length
    try {
      const found = await stage.fetch(stage.set(), name)
      if (found === undefined && before > 0) fail(`"${name}" was there, and said to be missing`)
      if (
        found === undefined &&
        stage.away.size > 0 &&
        [...stage.away.keys()].some(root => isAwayAllTheTime(root))
      ) {
        fail(`"${name}" was said to be missing, and nobody could tell`)
      }
      if (found !== undefined && found !== contents.get(name))
        fail(`"${name}" was read, and is something else`)
    } catch (thrown) {
      if (thrown instanceof BrokenPromise || !(thrown instanceof RepositoryError)) throw thrown
    }
  }
  // Outages change between rounds only, and reading ends within one.
  const isAwayAllTheTime = (root: string) => stage.away.has(root)
  const kill = () => {
    process++
    story.kills++
    stage.kill()
    set = spoil(stage.set(quorum))
  }

  const underWay: Promise<unknown>[] = []
  const broken = Promise.withResolvers<never>()
  const begin = (work: Promise<unknown>) => void underWay.push(work.catch(error => broken.reject(error)))
  const run = async () => {
    for (let round = 0; round < rounds; round++) {
      const name = `${(number + 1).toString(16).toUpperCase().padStart(8, '0')}.history`
      switch (
        random.pick([
          'file',
          'file',
          'file',
          'again',
          'away',
          'back',
          'kill',
          'cut',
          'catch up',
          'read',
          'read',
        ])
      ) {
        case 'file':
          number++
          contents.set(
            name,
            `content ${random.integer(0, 1_000_000)} of ${name}`.repeat(random.pick([1, 500])),
          )
          stage.put(name, contents.get(name) ?? '')
          pending.add(name)
          begin(archive(name))
          break
        case 'again':
          for (const each of pending) begin(archive(each))
          break
        case 'away': {
          story.outages++
          const root = random.pick([...roots])
          stage.away.set(root, random.pick(['EIO', 'EACCES']))
          wereAway.add(root)
          break
        }
        case 'back':
          stage.away.clear()
          break
        case 'kill':
          kill()
          break
        case 'cut':
          kill()
          disk.powerCut()
          for (const [place] of seen) {
            const [root = '', each = ''] = place.split(' ')
            if (stage.object(root, each) === undefined) seen.delete(place)
          }
          stage.kill()
          set = spoil(stage.set(quorum))
          break
        case 'catch up':
          // A module never has two at once.
          if (catchingUp !== process) begin(pass())
          break
        case 'read':
          await read()
          break
      }
      await clock.sleep(random.pick([0, 1, 5, 50]))
      look()
    }
    stage.away.clear()
    kill()
    for (const name of pending) {
      if (contents.has(name)) stage.put(name, contents.get(name))
      await archive(name)
      if (!acknowledged.has(name)) fail(`"${name}" could not be archived although nothing is wrong`)
    }
    await set.giveUp()
    const report = await pass()
    if (report?.status !== 'ok') fail(`catching up ended with ${JSON.stringify(report)}`)
    look()
    for (const name of contents.keys()) {
      const missing = roots.filter(root => !right(root, name))
      if (missing.length > 0) fail(`"${name}" is missing in ${missing.join()} after all`)
      disk.remove(`${wal}/${name}`)
    }
  }
  await clock.run(Promise.race([run(), broken.promise]))
  return story
}

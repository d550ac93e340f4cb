import { chmod, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { giveAway } from '../support/unprivileged.ts'
import type { Stage } from './stage.ts'

export interface Scene {
  name: string
  play(stage: Stage): Promise<void>
  /**
   * `incomplete`: a crash, or the end of a server before its archiver, has lost some counts. `unreachable`: the
   * server is down.
   */
  statistics?: 'incomplete' | 'unreachable'
}

// Where the server will not come for a long time, so that files made by hand are in nobody's way.
const far = (segment: number, timeline = 1) =>
  `${timeline.toString(16).padStart(8, '0')}0000000A${segment.toString(16).padStart(8, '0')}`.toUpperCase()

const gaveUp = 'failed too many times, will try again later'

/**
 * What happens to every contestant, in this order. A scene leaves nothing to be archived, except where it stops the
 * server. An archiver is started again 10 s after its last start, so what takes time in between costs none.
 */
export const script: Scene[] = [
  {
    name: 'segments are ended one after the other',
    async play(stage) {
      for (let count = 0; count < 3; count++) await stage.done(await stage.segment())
    },
  },
  {
    name: 'a base backup leaves its history file',
    async play(stage) {
      await stage.backup()
      await stage.done(await stage.segment())
    },
  },
  {
    name: 'the server is stopped',
    statistics: 'unreachable',
    async play(stage) {
      const last = await stage.upcomingSegment()
      await stage.pause()
      const stopped = stage.contestant.stop()
      await stage.lastCycleBegins()
      stage.resume()
      await stopped
      stage.note(`archived in the last cycle: ${await stage.isDone(last)}`)
    },
  },
  {
    name: 'a standby finds a file that became ready before',
    async play(stage) {
      const signal = join(stage.contestant.server.dataDirectory, 'standby.signal')
      await writeFile(signal, '')
      await giveAway(signal)
      await stage.forgetDone(stage.firstSegment)
      await stage.contestant.start()
      if (stage.contestant.archivesInRecovery) await stage.done(stage.firstSegment)
    },
  },
  {
    name: 'a standby is promoted in the middle of a segment',
    async play(stage) {
      await stage.contestant.server.promote()
      await stage.done(await stage.segment())
      await stage.done(stage.firstSegment)
    },
  },
  {
    name: 'files of all kinds wait at once',
    async play(stage) {
      await stage.pause()
      await stage.ready(
        far(2, 7),
        far(3),
        `${far(3)}.partial`,
        '00000007.history',
        `${far(3)}.00000028.backup`,
        far(2),
        `${far(2)}.00000028.backup`,
        far(1, 6),
        '00000003.history',
        'rotarybackupstory',
      )
      const last = await stage.segment()
      stage.resume()
      await stage.done(last)
      await stage.done('rotarybackupstory')
    },
  },
  {
    name: 'an older file comes while more files wait than one scan takes',
    async play(stage) {
      await stage.pause()
      const held = await stage.hold(far(0x10))
      const names = Array.from({ length: 80 }, (_, index) => far(0x11 + index))
      await stage.ready(...names)
      const last = await stage.segment()
      stage.resume()
      await held.opened()
      await stage.ready(far(0x0f))
      await held.release()
      await stage.done(last)
    },
  },
  {
    name: 'the archive directory is missing for a while',
    async play(stage) {
      await stage.moveArchiveAway()
      const first = await stage.segment()
      await stage.said(gaveUp)
      await stage.moveArchiveBack()
      await stage.segment().then(name => stage.done(name))
      await stage.done(first)
    },
  },
  {
    name: 'another file of the same name is in the archive, until somebody removes it',
    async play(stage) {
      const name = await stage.upcomingSegment()
      const path = await stage.archivedBefore(name, 'the content of another cluster')
      await stage.segment()
      await stage.said(gaveUp)
      const second = await stage.segment()
      await stage.said(gaveUp, 2)
      stage.note(`the next one is archived: ${await stage.isDone(second)}`)
      stage.note(`the other file reads: ${await readFile(path, 'utf8')}`)
      await stage.remove(path)
      await stage.done(await stage.segment())
    },
  },
  {
    name: 'another file of the same name comes into the archive during an attempt',
    async play(stage) {
      await stage.pause()
      const held = await stage.hold(far(0x70))
      const last = await stage.segment()
      stage.resume()
      await held.opened()
      const path = await stage.archivedBefore(far(0x70), 'the content of another cluster')
      await held.release()
      await stage.either(
        () => stage.isDone(last),
        // After the last of three attempts another one may begin at once, and see half of what is done here.
        async () => (await stage.saidTimes(`${far(0x70)}" already exists`)) > 0,
      )
      const content = await readFile(path, 'utf8')
      stage.note(`the other file is ${content.startsWith('the content of another') ? 'still there' : 'gone'}`)
      if (!(await stage.isDone(far(0x70)))) await stage.remove(path)
      await stage.done(await stage.segment())
    },
  },
  {
    name: 'a WAL file cannot be read for a while',
    async play(stage) {
      await stage.pause()
      await stage.ready(far(0x74))
      const path = join(stage.walDirectory, far(0x74))
      await chmod(path, 0)
      await stage.segment()
      stage.resume()
      await stage.said(gaveUp)
      await chmod(path, 0o600)
      await stage.done(await stage.segment())
    },
  },
  {
    name: 'a file is in the archive already, and another one comes a second time',
    async play(stage) {
      await stage.pause()
      await stage.archivedBefore(far(0x80))
      await stage.ready(far(0x80))
      await stage.forgetDone(far(2))
      const last = await stage.segment()
      stage.resume()
      await stage.done(last)
    },
  },
  {
    name: 'status files are left of files that are gone',
    async play(stage) {
      await stage.pause()
      await stage.onlyStatus(far(0x84), '00000009.history')
      const last = await stage.segment()
      stage.resume()
      await stage.done(last)
    },
  },
  {
    name: 'names are not of WAL files',
    async play(stage) {
      await stage.pause()
      await stage.ready(
        `${far(0x86)}.00000028.backup1`,
        'FEDCBA9876543210.X',
        'FEDCBA987654321',
        '000000010000000a00000086x',
      )
      const last = await stage.segment()
      stage.resume()
      await stage.done(last)
    },
  },
  {
    name: 'the archive directory is changed, to a path that is too long at first',
    async play(stage) {
      const { contestant } = stage
      await stage.makeSecondArchive()
      await contestant.configure({ 'basic_archive.archive_directory': `/${'long'.repeat(250)}` })
      await stage.done(await stage.segment())
      await contestant.configure({ 'basic_archive.archive_directory': stage.secondArchive })
      await stage.done(await stage.segment())
      await contestant.configure({ 'basic_archive.archive_directory': contestant.archiveDirectory })
      await stage.done(await stage.segment())
    },
  },
  {
    name: 'nothing is configured for a while, and a command fails at first',
    async play(stage) {
      const { contestant } = stage
      await contestant.configure({ 'basic_archive.archive_directory': '' })
      const first = await stage.segment()
      await stage.said('yet archiving is not configured')
      await contestant.configure({ archive_library: '' })
      await stage.said('yet archiving is not configured', 2)
      await contestant.configure({ archive_command: 'exit 3' })
      await stage.said(gaveUp)
      await contestant.configure({ archive_command: `cp %p ${contestant.archiveDirectory}/%f` })
      await stage.done(first)
    },
  },
  {
    name: 'status files cannot be renamed for a while',
    async play(stage) {
      await stage.pause()
      const first = await stage.segment()
      await chmod(stage.statusPath(''), 0o500)
      stage.resume()
      await stage.said('could not rename file', stage.contestant.repeatsAtOnce ? 2 : 1)
      await chmod(stage.statusPath(''), 0o700)
      await stage.done(await stage.segment())
      await stage.done(first)
    },
  },
  {
    name: 'the library does not exist, and is then the old one',
    async play(stage) {
      const { contestant } = stage
      const { archiveDirectory } = contestant
      await contestant.configure({ archive_library: 'nosuchlib', archive_command: '' })
      await stage.said('could not access file "nosuchlib"')
      await contestant.configure({
        archive_library: 'basic_archive',
        'basic_archive.archive_directory': archiveDirectory,
      })
      await stage.done(await stage.segment())
    },
  },
  {
    name: 'a library and a command are both set for a while',
    async play(stage) {
      const { contestant } = stage
      await contestant.configure({ archive_command: 'true' })
      const first = await stage.segment()
      if (contestant.refusesBothSet) await stage.said('FATAL', 2)
      else await stage.done(first)
      await contestant.configure({ archive_command: '' })
      await stage.done(await stage.segment())
    },
  },
  {
    name: 'an identical copy in the archive may only be read',
    statistics: 'incomplete',
    async play(stage) {
      await stage.pause()
      const copy = await stage.archivedBefore(far(0xa0), undefined, 0o400)
      await stage.ready(far(0xa0))
      const last = await stage.segment()
      stage.resume()
      await stage.either(
        () => stage.isDone(last),
        async () => (await stage.saidTimes('PANIC')) > 0,
      )
      await chmod(copy, 0o600)
      await stage.done(last)
      await stage.serverIsBack()
    },
  },
  {
    name: 'the archiver is killed while it archives, and another file comes a second time',
    statistics: 'incomplete',
    async play(stage) {
      await stage.pause()
      const held = await stage.hold(far(0xb0))
      await stage.forgetDone(far(3))
      const last = await stage.segment()
      stage.resume()
      await held.opened()
      await held.copying()
      await held.replace()
      await stage.kill()
      await stage.done(last)
      await held.letGo()
      await stage.serverIsBack()
    },
  },
  {
    name: 'the server is stopped while the archiver has much to do',
    statistics: 'unreachable',
    async play(stage) {
      await stage.pause()
      const held = await stage.hold(far(0xc0))
      await stage.ready(...Array.from({ length: 10 }, (_, index) => far(0xc1 + index)))
      await stage.segment()
      stage.resume()
      await held.opened()
      const stopped = stage.contestant.stop()
      await stage.lastCycleBegins()
      await held.release()
      await stopped
    },
  },
  {
    name: 'the server is started again',
    statistics: 'incomplete',
    async play(stage) {
      await stage.contestant.start()
      await stage.done(await stage.segment())
    },
  },
]

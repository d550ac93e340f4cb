// A real server that archives to two directories, one of which goes away and comes back.

import assert from 'node:assert/strict'
import { readdir, readFile, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { BridgedServer, removeTemplates, until } from './bridge/bridged-server.ts'
import { startPostgres } from './support/postgresql-server.ts'
import { checkout, privateDirectory } from './support/unprivileged.ts'

after(removeTemplates)

const objectsIn = async (directory: string): Promise<string[]> =>
  (await readdir(directory, { recursive: true, withFileTypes: true }))
    .filter(each => each.name.endsWith('.pgarchivist'))
    .map(each => join(each.parentPath, each.name).slice(directory.length + 1))
    .toSorted()

for (const major of [15, 18]) {
  test(`PostgreSQL ${major} archives to one while the other is away, which is brought up to date, and recovers from it`, async () => {
    await using server = await BridgedServer.start({ major, module: 'repository', timeouts: 'default' })
    const { root } = server.places
    const [first, second, away] = ['first', 'second', 'away'].map(name => join(root, name)) as [
      string,
      string,
      string,
    ]
    await privateDirectory(first)
    await privateDirectory(second)
    const repositories = {
      'pgarchivist.repository': `file://${first}, file://${second}`,
      'pgarchivist.repository_quorum': '1',
    }
    await server.staysUp(async session => {
      await server.postgres.configure(repositories)
      await session.query('CREATE TABLE kept (segment int)')
      const write = async (segment: number) => {
        await session.query(`INSERT INTO kept VALUES (${segment})`)
        return await server.postgres.switchWal()
      }
      await server.archivesAll()
      await server.postgres.baseBackup(join(root, 'copy'), { wal: false })
      await write(1)
      await server.archivesAll()
      await until('both have everything', async () => {
        const [one, two] = [await objectsIn(first), await objectsIn(second)]
        return one.length > 0 && one.join() === two.join()
      })

      await rename(second, away)
      for (const segment of [2, 3, 4]) await write(segment)
      await server.archivesAll()
      await server.says(
        new RegExp(
          `^WARNING: {2}could not archive "[0-9A-F]{24}" in repository "file://<root>/second": could not open`,
        ),
      )
      await server.counts({ failed_count: 0 })

      await server.postgres.configure({ 'pgarchivist.repository_quorum': '0' })
      const refused = await write(5)
      await server.says(
        new RegExp(
          `^ERROR: {2}could not archive "${refused}" in repository "file://<root>/second": could not open`,
        ),
      )

      await rename(away, second)
      await server.archivesAll()
      await until('it is brought up to date', async () => {
        const [one, two] = [await objectsIn(first), await objectsIn(second)]
        return one.join() === two.join()
      })
      await server.says(
        new RegExp(
          `^LOG: {2}copied \\d+ of \\d+ objects that were missing in repository "file://<root>/second"`,
        ),
      )
    })

    // From the one that was away, with the other one gone for good.
    await rename(first, join(root, 'gone'))
    await server.postgres.stop('fast').catch(() => undefined)
    await using recovered = await startPostgres({
      major,
      dataDirectory: join(root, 'copy'),
      signalFile: 'recovery',
      settings: {
        archive_mode: 'off',
        restore_command: `${join(await checkout(), 'bin/pgarchivist')} archive-get "%f" "%p"`,
        'pgarchivist.repository': `file://${second}`,
      },
    })
    await until('it has recovered', async () => {
      const [row] = await recovered.query<{ is: boolean }>('SELECT pg_is_in_recovery() AS is')
      return row?.is === false
    })
    assert.deepEqual(
      (await recovered.query<{ segment: number }>('SELECT segment FROM kept ORDER BY 1')).map(
        ({ segment }) => segment,
      ),
      [1, 2, 3, 4, 5],
    )
    assert.ok(await readFile(join(second, 'pgarchivist-repository.json')))
  })
}

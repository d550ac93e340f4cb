// A server archives to two stores of other kinds at once, and each of them alone brings it back: Azure Blob (Azurite) and
// SFTP (OpenSSH).

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ArchivedCluster } from './recovery/archived-cluster.ts'
import { Bank, contentsOf } from './recovery/bank.ts'
import { assertSound, installChecks } from './recovery/soundness.ts'
import { RunningAzurite } from './support/running-azurite.ts'
import { RunningSshd } from './support/running-sshd.ts'
import { sftpUrlOf } from './support/sftp-store.ts'

const major = 17
const transactionsBetween = 100

test(`PostgreSQL ${major} comes back from Azure Blob, and from SFTP, when the other one is gone`, async t => {
  await using azurite = await RunningAzurite.start()
  await using sshd = await RunningSshd.start()
  const azure = `azure://${await azurite.createContainer()}/wal?account=${azurite.account}&endpoint=${azurite.endpoint}`
  const sftp = sftpUrlOf(sshd)
  const environment = { AZURE_STORAGE_KEY: azurite.key }
  await using cluster = await ArchivedCluster.start({
    major,
    walSegmentMegabytes: 1,
    isEncrypted: true,
    place: { url: `${azure}, ${sftp}`, environment },
  })
  const { primary } = cluster
  await installChecks(primary)
  await using bank = await Bank.found(primary, major)
  await bank.resume()
  await bank.serves(transactionsBetween)
  const backup = await cluster.backup()
  await bank.serves(transactionsBetween)
  await bank.halt()
  const newest = await contentsOf(primary, bank.ledger)
  await cluster.archives(primary)
  await primary.stop('fast')
  assert.ok(!(await primary.log()).includes(azurite.key))
  assert.match(await cluster.verify(), /\S/)

  const comesBackFrom = async (url: string) => {
    const recovered = await cluster.recover(backup, { target: { 'pgarchivist.repository': url } })
    assert.deepEqual(await contentsOf(recovered, bank.ledger), newest)
    await assertSound(recovered)
    await recovered.stop('fast')
  }
  await t.test('from Azure Blob', async () => {
    await sshd.kill()
    await assert.rejects(cluster.recover(backup), /To recover with what the other ones have, take it out/)
    await comesBackFrom(azure)
  })
  await t.test('from SFTP', async () => {
    await sshd.restart()
    await azurite.kill()
    await comesBackFrom(sftp)
  })
})

import { execFile } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { giveAway } from './unprivileged.ts'

const run = promisify(execFile)

export interface TestCertificate {
  /** The authority that signed it, which no system trusts. */
  caFile: string
  certificateFile: string
  keyFile: string
}

/** Makes an authority and, signed by it, a certificate for these names (`DNS:localhost`, `IP:127.0.0.1`). */
export async function makeTestCertificate(
  directory: string,
  names: readonly string[],
): Promise<TestCertificate> {
  const at = (name: string) => join(directory, name)
  const openssl = async (...args: string[]) => await run('openssl', args, { cwd: directory })
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-batch']
  const days = ['-days', '2']
  await openssl(
    ...['req', '-x509', ...curve, ...days, '-subj', '/CN=test authority'],
    ...['-keyout', 'ca.key', '-out', 'ca.pem'],
  )
  await openssl(
    ...['req', ...curve, '-subj', '/CN=test store', '-keyout', 'server.key', '-out', 'server.csr'],
  )
  await writeFile(at('server.ext'), `subjectAltName=${names.join(',')}\n`)
  await openssl(
    ...['x509', '-req', '-in', 'server.csr', '-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial'],
    ...[...days, '-extfile', 'server.ext', '-out', 'server.pem'],
  )
  for (const name of ['ca.pem', 'server.pem', 'server.key']) await giveAway(at(name))
  return { caFile: at('ca.pem'), certificateFile: at('server.pem'), keyFile: at('server.key') }
}

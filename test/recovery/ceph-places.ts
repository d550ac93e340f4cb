import type { Ceph } from '../support/running-ceph.ts'
import { ownerOf, S3Profiles } from '../support/s3-profiles.ts'
import { sharedCeph } from '../support/shared-ceph.ts'
import type { ClusterOptions } from './archived-cluster.ts'

/** Buckets of a real Ceph to archive to. The credentials are in a file that the environment names, and nowhere else. */
export class CephPlaces implements AsyncDisposable {
  readonly ceph: Ceph
  readonly #profiles: S3Profiles

  private constructor(ceph: Ceph, profiles: S3Profiles) {
    this.ceph = ceph
    this.#profiles = profiles
  }

  static async begin(): Promise<CephPlaces> {
    const ceph = await sharedCeph()
    const profiles = await S3Profiles.begin()
    await profiles.set({ default: ownerOf(ceph) })
    return new CephPlaces(ceph, profiles)
  }

  /** A new bucket, and a prefix in it. */
  async place(prefix = ''): Promise<NonNullable<ClusterOptions['place']>> {
    const url = `s3://${await this.ceph.createBucket()}/${prefix}?endpoint=${this.ceph.endpoint}`
    return { url, environment: this.#profiles.environment }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#profiles[Symbol.asyncDispose]()
    await this.ceph[Symbol.asyncDispose]()
  }
}

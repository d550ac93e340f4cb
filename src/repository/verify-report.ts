/** What can be wrong with a repository, and what to do about it. `docs/verify.md` lists the same. */
export const findingKinds = {
  nothing_archived:
    'Is this the right repository? If something was there, restore it from a copy of the repository; if nothing ever was, see why nothing is archived.',
  missing:
    'No restore can pass the gap. Look for the files in pg_wal of the server and of its standbys, as long as they have them; if they are gone, take a new base backup.',
  missing_history:
    'The server never removes this file: copy it from pg_wal of the server or of a standby, and archive it again.',
  truncated: 'Restore this object from a copy of the repository; without one, take a new base backup.',
  too_long: 'Restore this object from a copy of the repository; without one, take a new base backup.',
  altered: 'Restore this object from a copy of the repository; without one, take a new base backup.',
  metadata: 'Restore this object from a copy of the repository; without one, take a new base backup.',
  unreadable:
    'Nothing is known of this object: it may be sound. Mend permissions or the disk, and verify again.',
  newer_format: 'Use a newer pgarchivist.',
  wrong_key: 'Name an identity file that holds the private key of one of these recipients.',
  no_key: 'Name an identity file that holds the private key of one of these recipients.',
  wrong_size:
    'The server refuses such a segment. Look for the right one in pg_wal of the server and of its standbys.',
  mixed_segment_sizes:
    'The segment size was changed with pg_resetwal: no restore can pass this place. Take a new base backup.',
  bad_history: 'The server refuses it, too: restores cannot follow this timeline from its parent.',
  stranger: 'Find out who put it there, and move it away: only WAL files belong there.',
} as const satisfies Record<string, string>

/** What is worth knowing, and takes nothing from any restore. */
export const noteKinds = {
  unneeded_gap: 'No base backup that is known here needs this WAL. It may be removed.',
  unknown_lineage:
    'Whether the WAL of its ancestors is complete was not looked at. Name an identity file with the private key, and verify again.',
  bad_backup_history: 'Where the backup began is known from its name; up to where it needs WAL is not.',
  stranger: 'It was left alone.',
  unfinished_write: 'It was cut off more than a day ago and can be removed.',
} as const satisfies Record<string, string>

export type FindingKind = keyof typeof findingKinds
export type NoteKind = keyof typeof noteKinds

export interface Finding {
  /** In one line, as of an error. */
  message: string
  /** The object that it is about. */
  key?: string
  system_identifier?: string
  timeline?: number
  /** Of the first and the last file that is missing, and how many these are. */
  first?: string
  last?: string
  count?: number
  /** Of the failed system call. */
  code?: string
}

export interface FindingsOfKind<Kind extends string> {
  kind: Kind
  /** How many there are. */
  count: number
  hint: string
  /** No more than some of them. */
  shown: Finding[]
}

/** A place in the WAL, for people and programs. */
export interface WalPlace {
  timeline: number
  lsn: string
}

export interface RestoreReach {
  /** A restore can begin here… */
  from: WalPlace
  /** …and needs a base backup that is not older; this is the oldest one that is known. */
  backup: { name: string; started_at: string | null } | null
  /** It can end anywhere up to here. */
  to: WalPlace & { segment: string; written_at: string }
}

export interface TimelineReport {
  timeline: number
  parent: { timeline: number; lsn: string } | null
  first_segment: string | null
  newest_segment: string | null
  segments: number
  partial_segments: { count: number; shown: string[] }
  backup_histories: number
  stored_bytes: number
  plaintext_bytes: number
  /** How many segments are missing in the chains that restores follow. */
  missing_segments: number
  /** `null` where nothing can be restored. */
  restore: RestoreReach | null
}

export interface ClusterReport {
  system_identifier: string
  wal_segment_size: number | null
  timelines: TimelineReport[]
}

export interface VerifyReport {
  /** Of this form. It grows when a member changes its meaning; new members do not count. */
  version: 1
  repository: string
  /** `incomplete`: not everything could be looked at; `error` says why. */
  status: 'ok' | 'findings' | 'incomplete'
  error: { message: string; detail: string | null; hint: string | null } | null
  /** Was the content decoded too, and not the stored bytes compared only? */
  decoded: boolean
  objects: number
  bytes: number
  /** Objects that were gone when they were to be read: expiry may run at any time. */
  removed_meanwhile: number
  clusters: ClusterReport[]
  findings: FindingsOfKind<FindingKind>[]
  notes: FindingsOfKind<NoteKind>[]
}

/** Keeps some findings of each kind, and counts all of them. */
export class FindingLog<Kind extends string> {
  readonly #hints: Readonly<Record<Kind, string>>
  readonly #shownMax: number
  readonly #kinds = new Map<Kind, FindingsOfKind<Kind>>()

  constructor(hints: Readonly<Record<Kind, string>>, shownMax: number) {
    this.#hints = hints
    this.#shownMax = shownMax
  }

  /** `count` is for those of which nothing more is known. */
  add(kind: Kind, finding: Finding | undefined, count = 1): void {
    let ofKind = this.#kinds.get(kind)
    if (ofKind === undefined) {
      ofKind = { kind, count: 0, hint: this.#hints[kind], shown: [] }
      this.#kinds.set(kind, ofKind)
    }
    ofKind.count += count
    if (finding !== undefined && ofKind.shown.length < this.#shownMax) ofKind.shown.push(finding)
  }

  get isEmpty(): boolean {
    return this.#kinds.size === 0
  }

  /** In the order in which the kinds are listed. */
  get all(): FindingsOfKind<Kind>[] {
    return (Object.keys(this.#hints) as Kind[]).flatMap(kind => this.#kinds.get(kind) ?? [])
  }
}

// What writes while backups are taken: a bank like that of pgbench, served by several sessions at once, which keeps
// a ledger of its own of what the server has acknowledged.

import assert from 'node:assert/strict'
import type { Client } from 'pg'
import { SeededRandom } from '../../src/system/seeded-random.ts'
import type { PostgresServer } from '../support/postgresql-server.ts'

// A session per branch: what they leave open at a halt must not make each other wait.
const sessionCount = 4
const tellersPerBranch = 10
const accountsPerBranch = 500

// More than any other, so that nobody overlooks it in a sum.
const leftDelta = 1_000_000

const schema = `
  CREATE TABLE branches (bid int PRIMARY KEY, balance bigint NOT NULL DEFAULT 0);
  CREATE TABLE tellers (tid int PRIMARY KEY, bid int NOT NULL, balance bigint NOT NULL DEFAULT 0);
  CREATE TABLE accounts (aid int PRIMARY KEY, bid int NOT NULL, balance bigint NOT NULL DEFAULT 0,
                         filler char(84) NOT NULL DEFAULT '') WITH (fillfactor = 90);
  CREATE TABLE history (tid int NOT NULL, bid int NOT NULL, aid int NOT NULL, delta bigint NOT NULL,
                        mtime timestamptz NOT NULL DEFAULT clock_timestamp());
  CREATE TABLE receipts (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), content jsonb NOT NULL);
  CREATE INDEX ON receipts USING gin (content jsonb_path_ops);
  INSERT INTO branches SELECT bid FROM generate_series(0, ${sessionCount - 1}) AS bid;
  INSERT INTO tellers SELECT tid, tid % ${sessionCount} FROM generate_series(0, ${sessionCount * tellersPerBranch - 1}) AS tid;
  INSERT INTO accounts SELECT aid, aid % ${sessionCount} FROM generate_series(0, ${sessionCount * accountsPerBranch - 1}) AS aid;
`

/** What the server has said to be committed. */
export interface Ledger {
  transactions: number
  total: number
  receipts: number
}

/** All that is in the tables, in a form that is equal where they are. */
export interface Contents {
  /** For each table, how many rows there are, and a digest of all of them. */
  tables: Record<string, { rows: number; digest: string }>
  /** The same four times, whatever happens: in accounts, tellers, branches and history. */
  money: number[]
}

export class Bank implements AsyncDisposable {
  readonly ledger: Ledger
  #sessions: Client[]
  readonly #random: SeededRandom
  #isHalting = false
  #work: Promise<void>[] = []
  #left: Client[] = []
  #watchers: Array<() => void> = []

  private constructor(sessions: Client[], ledger: Ledger, seed: number) {
    this.#sessions = sessions
    this.ledger = ledger
    this.#random = new SeededRandom(seed)
  }

  static async found(server: PostgresServer, seed: number): Promise<Bank> {
    await server.query(schema)
    return new Bank(await connect(server), { transactions: 0, total: 0, receipts: 0 }, seed)
  }

  /** The bank as it was at some moment goes on with another server. */
  static async reopen(server: PostgresServer, ledger: Ledger, seed: number): Promise<Bank> {
    return new Bank(await connect(server), { ...ledger }, seed)
  }

  /** All sessions work until they are halted. */
  async resume(): Promise<void> {
    assert.equal(this.#work.length, 0, 'the bank is open already')
    for (const [index, session] of this.#left.splice(0).entries()) {
      await session.query(index % 2 === 0 ? 'COMMIT' : 'ROLLBACK')
      if (index % 2 === 0) this.#enter(leftDelta, false)
    }
    this.#isHalting = false
    this.#work = this.#sessions.map(session => this.#serve(session, this.#random.fork()))
  }

  /** Resolves when this many more transactions are committed. */
  async serves(transactions: number): Promise<void> {
    const enough = this.ledger.transactions + transactions
    const failure = Promise.all(this.#work)
    while (this.ledger.transactions < enough) {
      await Promise.race([new Promise<void>(resolve => this.#watchers.push(resolve)), failure])
    }
  }

  /**
   * Until then what is committed stays as it is. But half of the sessions are left in the midst of a transaction, which
   * no recovery to this moment may show.
   */
  async halt(): Promise<void> {
    this.#isHalting = true
    await Promise.all(this.#work.splice(0))
    for (const [branch, session] of this.#sessions.entries()) {
      if (branch % 2 === 0) continue
      await session.query(
        `BEGIN; ${statements({ branch, account: branch, teller: branch, delta: leftDelta })}`,
      )
      this.#left.push(session)
    }
  }

  /** A single transaction, for which the bank has to be halted. Returns its number. */
  async transfer(delta: number): Promise<string> {
    const [session] = this.#sessions
    assert(session !== undefined)
    await session.query(`BEGIN; ${statements({ branch: 0, account: 0, teller: 0, delta })}`)
    const { rows } = await session.query<{ xid: string }>('SELECT pg_current_xact_id()::text AS xid')
    await session.query('COMMIT')
    this.#enter(delta, false)
    return rows[0]?.xid ?? ''
  }

  async #serve(session: Client, random: SeededRandom): Promise<void> {
    while (!this.#isHalting) {
      const branch = random.integer(0, sessionCount - 1)
      const delta = random.integer(-5_000, 5_000)
      const account = random.integer(0, sessionCount * accountsPerBranch - 1)
      const teller = random.integer(0, tellersPerBranch - 1) * sessionCount + branch
      const hasReceipt = random.chance(0.3)
      const work = [
        statements({ branch, account, teller, delta }),
        ...(hasReceipt ? [receipt(account, delta)] : []),
      ]
      // Some change their mind, which leaves its own traces in the WAL.
      if (random.chance(0.05)) {
        await session.query(`BEGIN; ${work.join('; ')}; ROLLBACK`)
        continue
      }
      await session.query(`BEGIN; ${work.join('; ')}; COMMIT`)
      this.#enter(delta, hasReceipt)
    }
  }

  #enter(delta: number, hasReceipt: boolean): void {
    this.ledger.transactions++
    this.ledger.total += delta
    if (hasReceipt) this.ledger.receipts++
    for (const watcher of this.#watchers.splice(0)) watcher()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isHalting = true
    await Promise.allSettled(this.#work)
    await Promise.allSettled(this.#sessions.map(session => session.end()))
  }
}

interface Transaction {
  branch: number
  account: number
  teller: number
  delta: number
}

function statements({ branch, account, teller, delta }: Transaction): string {
  return `
    UPDATE accounts SET balance = balance + ${delta} WHERE aid = ${account};
    UPDATE tellers SET balance = balance + ${delta} WHERE tid = ${teller};
    UPDATE branches SET balance = balance + ${delta} WHERE bid = ${branch};
    INSERT INTO history (tid, bid, aid, delta) VALUES (${teller}, ${branch}, ${account}, ${delta})`
}

function receipt(account: number, delta: number): string {
  return `INSERT INTO receipts (content)
    SELECT jsonb_build_object('account', ${account}, 'delta', ${delta}, 'seals', jsonb_agg(md5(random()::text)))
      FROM generate_series(1, 12)`
}

async function connect(server: PostgresServer): Promise<Client[]> {
  return await Promise.all(Array.from({ length: sessionCount }, () => server.connect()))
}

/** What a server has, in one snapshot. The sums have to be right, and what the ledger says. */
export async function contentsOf(server: PostgresServer, ledger: Ledger): Promise<Contents> {
  const client = await server.connect()
  try {
    await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY')
    const tables: Contents['tables'] = {}
    const names = await client.query<{ name: string }>(
      `SELECT relname AS name FROM pg_class
        WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY relname`,
    )
    for (const { name } of names.rows) {
      const { rows } = await client.query<{ rows: string; digest: string }>(
        `SELECT count(*) AS rows, md5(coalesce(string_agg(each, '' ORDER BY each), '')) AS digest
           FROM (SELECT md5(t::text) AS each FROM ${name} AS t) AS hashed`,
      )
      tables[name] = { rows: Number(rows[0]?.rows), digest: rows[0]?.digest ?? '' }
    }
    const sums = await client.query<{ money: string }>(
      ['balance FROM accounts', 'balance FROM tellers', 'balance FROM branches', 'delta FROM history']
        .map(what => what.split(' FROM '))
        .map(([column, table]) => `SELECT coalesce(sum(${column}), 0) AS money FROM ${table}`)
        .join(' UNION ALL '),
    )
    await client.query('COMMIT')
    const money = sums.rows.map(row => Number(row.money))
    const { transactions, total, receipts } = ledger
    assert.deepEqual(money, [total, total, total, total], 'money was lost or made')
    assert.equal(
      tables['history']?.rows,
      transactions,
      'committed transactions are missing, or there are others',
    )
    assert.equal(tables['receipts']?.rows, receipts, 'committed receipts are missing, or there are others')
    return { tables, money }
  } finally {
    await client.end()
  }
}

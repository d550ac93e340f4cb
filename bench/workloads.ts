// What the server does that writes the WAL of the benchmarks.

export interface Workload {
  name: string
  /** What tables call it. */
  title: string
  /** Raised when what it writes changes. */
  recipe: number
  schema: string
  /** One statement that commits many transactions on its way. */
  work: string
}

// More than the server writes between two checkpoints, so that full-page images are most of what it writes.
const accounts = 5_000_000
const tellers = 500
const branches = 50

/** Accounts, tellers, branches and a history, as TPC-B has them and pgbench by default. */
const bank: Workload = {
  name: 'bank',
  title: 'TPC-B',
  recipe: 1,
  schema: `
    CREATE TABLE branches (branch integer PRIMARY KEY, balance integer NOT NULL, filler character(88));
    CREATE TABLE tellers (teller integer PRIMARY KEY, branch integer, balance integer NOT NULL, filler character(84));
    CREATE TABLE accounts (account integer PRIMARY KEY, branch integer, balance integer NOT NULL, filler character(84));
    CREATE TABLE history (teller integer, branch integer, account integer, delta integer, at timestamp,
      filler character(22));
    INSERT INTO branches SELECT n, 0, '' FROM generate_series(1, ${branches}) n;
    INSERT INTO tellers SELECT n, n % ${branches} + 1, 0, '' FROM generate_series(1, ${tellers}) n;
    INSERT INTO accounts SELECT n, n % ${branches} + 1, 0, '' FROM generate_series(1, ${accounts}) n;
    -- The numbers are drawn before the statements that use them: there, they would be drawn for every row.
    CREATE PROCEDURE work(transactions integer) LANGUAGE plpgsql AS $$
    DECLARE
      some_account integer;
      some_teller integer;
      some_branch integer;
      change integer;
    BEGIN
      FOR n IN 1 .. transactions LOOP
        some_account := 1 + floor(random() * ${accounts})::integer;
        some_teller := 1 + floor(random() * ${tellers})::integer;
        some_branch := 1 + floor(random() * ${branches})::integer;
        change := floor(random() * 10000)::integer - 5000;
        UPDATE accounts SET balance = balance + change WHERE account = some_account;
        PERFORM balance FROM accounts WHERE account = some_account;
        UPDATE tellers SET balance = balance + change WHERE teller = some_teller;
        UPDATE branches SET balance = balance + change WHERE branch = some_branch;
        INSERT INTO history VALUES (some_teller, some_branch, some_account, change, clock_timestamp());
        COMMIT;
      END LOOP;
    END $$`,
  work: 'CALL work(1000)',
}

const orders = 200_000

/** Orders with random keys and documents, which are placed, changed and deleted. It compresses about 3 to 1. */
const shop: Workload = {
  name: 'shop',
  title: 'mixed',
  recipe: 1,
  schema: `
    CREATE TABLE orders (id uuid PRIMARY KEY, customer uuid NOT NULL, placed timestamptz NOT NULL, total numeric(10, 2),
      document jsonb NOT NULL);
    CREATE INDEX ON orders (customer);
    CREATE TABLE events (id uuid PRIMARY KEY, subject uuid NOT NULL, at timestamptz NOT NULL, payload jsonb NOT NULL);
    CREATE FUNCTION some_document() RETURNS jsonb LANGUAGE sql VOLATILE AS $$
      SELECT jsonb_build_object(
        'status', (ARRAY['placed', 'paid', 'packed', 'sent', 'returned'])[1 + floor(random() * 5)::integer],
        'currency', (ARRAY['EUR', 'USD', 'JPY', 'CZK'])[1 + floor(random() * 4)::integer],
        'address', jsonb_build_object('street', 'Street ' || floor(random() * 5000), 'zip', floor(random() * 90000) + 10000,
          'city', (ARRAY['Amsterdam', 'Berlin', 'Praha', 'Tokyo', 'Ottawa', 'Lyon'])[1 + floor(random() * 6)::integer]),
        'items', jsonb_build_array(
          jsonb_build_object('sku', md5(random()::text), 'quantity', 1 + floor(random() * 9), 'price', round((random() * 500)::numeric, 2)),
          jsonb_build_object('sku', md5(random()::text), 'quantity', 1 + floor(random() * 9), 'price', round((random() * 500)::numeric, 2))),
        'note', repeat('delivery to the back door, ring twice; ', floor(random() * 3)::integer))
    $$;
    INSERT INTO orders SELECT gen_random_uuid(), gen_random_uuid(), now(), random() * 1000, some_document()
      FROM generate_series(1, ${orders});
    -- A key from the middle of nowhere, and the order that comes next after it, if any does.
    CREATE PROCEDURE work(transactions integer) LANGUAGE plpgsql AS $$
    DECLARE
      somewhere uuid;
      found_id uuid;
    BEGIN
      FOR n IN 1 .. transactions LOOP
        somewhere := gen_random_uuid();
        SELECT id INTO found_id FROM orders WHERE id > somewhere ORDER BY id LIMIT 1;
        CONTINUE WHEN NOT FOUND;
        UPDATE orders SET document = some_document(), total = random() * 1000 WHERE id = found_id;
        INSERT INTO events VALUES (gen_random_uuid(), found_id, clock_timestamp(), jsonb_build_object('kind', 'changed',
          'by', 'worker ' || n % 16, 'request', gen_random_uuid()));
        INSERT INTO orders VALUES (gen_random_uuid(), gen_random_uuid(), clock_timestamp(), random() * 1000, some_document());
        IF n % 2 = 0 THEN
          somewhere := gen_random_uuid();
          SELECT id INTO found_id FROM orders WHERE id > somewhere ORDER BY id LIMIT 1;
          DELETE FROM orders WHERE id = found_id;
        END IF;
        COMMIT;
      END LOOP;
    END $$`,
  work: 'CALL work(500)',
}

export const workloads = [bank, shop]

/** The front door: reads the command line, and loads no more than the one command that it names. */
import { readFileSync } from 'node:fs'
import { Command, InvalidArgumentError, Option } from 'commander'

const nodeVersionNeeded = [24, 21] as const

function refuseOldNode(): void {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
  const [majorNeeded, minorNeeded] = nodeVersionNeeded
  if (major > majorNeeded || (major === majorNeeded && minor >= minorNeeded)) return
  process.stderr.write(
    `pgarchivist: Node ${nodeVersionNeeded.join('.')} or newer is needed, this is ${process.versions.node}\n`,
  )
  process.exit(1)
}

function packageVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8')
  return (JSON.parse(text) as { version: string }).version
}

function collect(value: string, before: string[]): string[] {
  if (!value.includes('=')) throw new InvalidArgumentError('It has to be NAME=VALUE.')
  return [...before, value]
}

const dataDirectoryOption = () =>
  new Option('-D, --pgdata <DIR>', 'data directory of the server').env('PGDATA').makeOptionMandatory()

const program = new Command('pgarchivist')
  .description('PostgreSQL archive modules, in TypeScript.')
  .version(packageVersion(), '-V, --version')
  .showHelpAfterError('Try "pgarchivist --help".')

program
  .command('archiver')
  .description("archive completed WAL files with a module, as the server's own archiver would")
  .addOption(dataDirectoryOption())
  .option(
    '-c, --set <NAME=VALUE>',
    'setting, overrides the configuration files; may be repeated',
    collect,
    [],
  )
  .option('--config-file <FILE>', "configuration file to read instead of the server's postgresql.conf")
  .addOption(
    new Option('--log-format <FORMAT>', 'form of log lines').choices(['text', 'json']).default('text'),
  )
  .addHelpText(
    'after',
    `
Signals: SIGHUP reloads the configuration files. SIGTERM and SIGINT end it after a last cycle; a second one, or
SIGQUIT, at once.

Exit status: 0 after an orderly end, 1 if it could not start or had to be ended before it was ready.`,
  )
  .action(async options => {
    const { archiverCommand } = await import('./archiver-command.ts')
    process.exitCode = await archiverCommand({ ...options, pgdata: options.pgdata })
    process.exit()
  })

program
  .command('info')
  .description('show what was archived from a data directory, and what waits')
  .addOption(dataDirectoryOption())
  .addOption(new Option('--output <FORMAT>', 'form of the output').choices(['text', 'json']).default('text'))
  .action(async options => {
    const { infoCommand } = await import('./info-command.ts')
    process.exitCode = await infoCommand(options)
  })

const collectPath = (value: string, before: string[]) => [...before, value]
const pgConfigOption = () =>
  new Option('--pg-config <PATH>', 'pg_config of a server, instead of all that are found; may be repeated')
    .argParser(collectPath)
    .default([], 'all that are found')
const pgConfigPlaces =
  'pg_config is looked for on the PATH, in /usr/lib/postgresql/*/bin, /usr/pgsql-*/bin and /usr/local/pgsql/bin.'

program
  .command('install')
  .description('build the library that PostgreSQL loads, and install it into the servers of this machine')
  .addOption(pgConfigOption())
  .option(
    '--destdir <DIR>',
    'directory to put in front of where it is installed, for those who make packages',
  )
  .option('--dry-run', 'only tell what would be done')
  .addHelpText(
    'after',
    `
${pgConfigPlaces}
The compiler is the one that CC names, else the one that built the server, else cc, gcc or clang.

Exit status: 0 if the library was installed for every server that was named or found, 1 if it could not be for one of
them or if there is none.`,
  )
  .action(async options => {
    const { installCommand } = await import('./install-command.ts')
    process.exitCode = await installCommand(options)
  })

program
  .command('uninstall')
  .description('remove that library')
  .addOption(pgConfigOption())
  .option('--destdir <DIR>', 'directory in front of where it was installed')
  .option('--dry-run', 'only tell what would be done')
  .addHelpText(
    'after',
    `
${pgConfigPlaces}

Exit status: 0 if none of the servers that were named or found has the library now, 1 if it could not be removed from
one of them or if there is none.`,
  )
  .action(async options => {
    const { uninstallCommand } = await import('./install-command.ts')
    process.exitCode = await uninstallCommand(options)
  })

// Not in the help: the library in the server starts it, and nobody else can.
program.command('bridge', { hidden: true }).action(async () => {
  const { runBridgeProcess } = await import('./bridge-process.ts')
  runBridgeProcess()
})

refuseOldNode()
await program.parseAsync()

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
SIGQUIT, at once.`,
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

refuseOldNode()
await program.parseAsync()

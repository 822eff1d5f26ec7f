/** The help text: every option that does something, by topic; docs/commands.md has the rest. */
export function usage(): string {
  return `
Usage:
  criu dump -t PID [options]
  criu restore [options]
  criu check [--feature NAME | --extra | --all]
  criu cpuinfo dump|check [--cpu-cap CAP]

General:
  -t, --tree PID            root of the tree to dump
  -D, --images-dir DIR      directory of the image (default: the current one)
  -W, --work-dir DIR        directory of log, pidfile and statistics (default: that of the image)
  -o, --log-file FILE       log, "-" for standard output (default: standard error)
  -v[NUM], --verbosity=NUM  0 to 4: messages, errors, warnings (default), information, all; -vv adds to it
  -R, --leave-running       let the tree go on after a dump (default: it is killed)
  -s, --leave-stopped       leave it stopped, after a dump or a restore
  -d, --restore-detached    return once the restored tree runs (default: when its root has ended)
  -S, --restore-sibling     make the restored root a child of the caller; needs -d
      --exec-cmd            after a restore, become the command behind "--"
      --pidfile FILE        write the restored root's pid to a new file
      --timeout SECONDS     how long a task may take to stop (default 10)
      --action-script FILE  run a program at pre-dump, post-dump, pre-restore, post-restore, pre-resume, post-resume
      --status-fd FD        write a zero byte to FD when done
      --display-stats       print the statistics
      --cpu-cap [CAP]       write or compare CPU capabilities: cpu, fpu, ins, all, none, ^CAP
      --close FD            close a descriptor first
      --config FILE         read options from FILE; --no-default-config leaves the default files out

Resources:
  -j, --shell-job           the session and terminal are the caller's
  -l, --file-locks          save file locks
      --link-remap          give deleted files that have other names a name for the time being
      --ghost-limit SIZE    largest deleted file that goes into the image (default 1M)
      --external KEY        what is outside of the tree, and stays there
      --inherit-fd fd[N]:KEY  descriptor N stands in for an outside file

Other options of CRIU 4.2 are read, too; docs/commands.md says what becomes of each.
  -h, --help  -V, --version`;
}

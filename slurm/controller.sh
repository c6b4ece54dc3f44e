#!/usr/bin/env bash
# For clusters that forbid long processes on the login node: Snakemake in a small job of its own, which hands over to the next one
# before its time is up. Start it from the root of the repository, with a file of values over those of params.yaml if you have one:
#
#   bash slurm/controller.sh [config/studies/mine.yaml]
#
# CONTROLLER_MINUTES: run time of one such job (1440). SBATCH_ACCOUNT, SBATCH_PARTITION and other variables of sbatch apply.
set -euo pipefail
layer=${1:-}
study=$(printf '%s %s' "$PWD" "$layer" | sha256sum | cut -c1-12)
name="controller-$study"

submit() {
  sbatch --parsable --job-name "$name" --dependency singleton --time "${CONTROLLER_MINUTES:-1440}" --mem 2000 --cpus-per-task 2 \
    --signal B:USR1@"${CONTROLLER_HANDOVER:-300}" --requeue --open-mode append --output .snakemake/controller.log slurm/controller.sh "$layer"
}

if [ "${SLURM_JOB_NAME:-}" != "$name" ]; then
  if [ -n "$(squeue --me --noheader --name "$name")" ]; then
    echo "error: this study has a controller already: squeue --me --name $name" >&2
    exit 1
  fi
  mkdir -p .snakemake
  echo "controller: job $(submit), log .snakemake/controller.log"
  exit
fi

PATH="$PWD/.venv/bin:$PATH"
run=
# The study's jobs go on when Snakemake is killed, and the next controller waits for them.
hand_over() {
  until next=$(submit); do sleep 10; done
  echo "controller: handing over to job $next"
  [ -z "$run" ] || kill -KILL "$run"
  exit
}
trap hand_over USR1
left() { squeue --me --noheader --format '%j %i %k' | sed -n "s/^study-${study}_[^ ]* //p"; }
until jobs=$(left) && [ -z "$jobs" ]; do
  printf 'controller: waiting for job %s\n' "${jobs//$'\n'/, }"
  sleep 10 &
  wait $!
done
command=(snakemake --profile slurm --slurm-jobname-prefix "study-$study" ${layer:+--configfile "$layer"})
"${command[@]}" --unlock
"${command[@]}" &
run=$!
wait $run

//! The scripts of examples/commands/, against stand-ins for torchrun, torch and Slurm.

use super::worker::{Stage, gone};
use super::{GONE, Scene};
use delta_guard_contract::method::unlearn::command::Keys;
use delta_guard_contract::units::Span;
use delta_guard_contract::{Code, Outcome};
use rustix::process::{Pid, Signal, kill_process_group};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Is what the scripts call there? Told where not.
fn has(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let absent: Vec<_> = programs
        .iter()
        .filter(|program| !std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
        .collect();
    if !absent.is_empty() {
        eprintln!("SKIPPED: there is no {absent:?} here");
    }
    absent.is_empty()
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/commands").join(name)
}

fn put(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// `env` with stand-ins first in PATH, then a script and its arguments.
fn with_fakes(fakes: &Path, more: &[String], script: &str, arguments: &[&str]) -> Vec<PathBuf> {
    let path = format!("PATH={}:{}", fakes.display(), std::env::var("PATH").unwrap());
    let mut command = vec![PathBuf::from("/usr/bin/env"), path.into()];
    command.extend(more.iter().map(PathBuf::from));
    command.push(example(script));
    command.extend(arguments.iter().map(PathBuf::from));
    command
}

#[test]
fn the_example_in_torchvisions_shape_trains_on_the_retained_folder_and_goes_on() {
    if !has(&["bash", "python3", "awk"]) {
        return;
    }
    let scene = Scene::new();
    let fakes = scene.file("fakes");
    put(
        &fakes.join("torchrun"),
        "#!/bin/bash\necho \"$@\" > \"$SEEN/options\"; (cd \"$4\"/train && find . -type l | sort) > \"$SEEN/files\"; ls \"$4\"/val/ > \"$SEEN/listing\"
         for n in 1 2; do echo \"Epoch: [$n]  [ 0/9]  eta: 0:00:01\"; done; cp \"$GOOD\" \"$6/checkpoint.pth\"",
    );
    put(
        &fakes.join("torch/__init__.py"),
        "def load(path, **kw):\n    return {'model_ema': open(path, 'rb').read()}\n",
    );
    put(&fakes.join("safetensors/__init__.py"), "");
    put(
        &fakes.join("safetensors/torch.py"),
        "def save_file(tensors, path):\n    open(path, 'wb').write(tensors)\n",
    );
    put(&scene.file("val/0/x.png"), "");
    let more = [
        format!("SEEN={}", scene.bench.folder.path().display()),
        format!("GOOD={}", scene.file("good.safetensors").display()),
        format!("PYTHONPATH={}", fakes.display()),
        format!("VALIDATION={}", scene.file("val").display()),
        "TRAIN=/opt/train.py".into(),
        "KEY=model_ema".into(),
    ];
    let keys = Keys {
        command: with_fakes(&fakes, &more, "torchvision.sh", &["--model", "resnet18", "--epochs", "4"]),
        ..Keys::default()
    };
    let seen = |name: &str| fs::read_to_string(scene.file(name)).unwrap();
    let (trained, heard) = scene.run(&keys);
    trained.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(heard.shares, [(250, "epoch 2 of 4".into()), (500, "epoch 3 of 4".into())]);
    let data = scene.out.join("command/data");
    let options = format!("--nproc_per_node=1 /opt/train.py --data-path {} --output-dir ", data.display());
    assert!(seen("options").starts_with(&options), "{}", seen("options"));
    assert!(seen("options").trim().ends_with("--device cpu --model resnet18 --epochs 4"));
    let ids = scene.bench.data.ids();
    let mut retained: Vec<String> = scene.retained.iter().map(|&i| format!("./{}\n", ids[i])).collect();
    retained.sort();
    assert_eq!(seen("files").lines().count(), ids.len() - GONE.len());
    assert_eq!(
        {
            let mut lines: Vec<String> = seen("files").lines().map(|line| format!("{line}\n")).collect();
            lines.sort();
            lines
        },
        retained
    );
    assert_eq!(seen("listing"), "0\n");
    // The next attempt goes on from its checkpoint.
    scene.run(&keys).0.unwrap_or_else(|error| panic!("{error}"));
    let resume = scene.out.join("command/resume/checkpoint.pth");
    assert!(
        seen("options").contains(&format!("--resume {} --model", resume.display())),
        "{}",
        seen("options")
    );
}

/// Stand-ins of Slurm: `sbatch` runs the script that is its last argument and waits for it; `scancel` notes what it is asked.
fn slurm(folder: &Path) -> PathBuf {
    let fakes = folder.join("fakes");
    put(
        &fakes.join("sbatch"),
        "#!/bin/bash\nprintf '%s\\n' \"$@\" > \"$SEEN/sbatch\"; echo '4711;cluster'
         for argument in \"$@\"; do case $argument in --output=*) out=${argument#--output=};; esac; done
         setsid /bin/bash \"${@: -1}\" >> \"$out\" 2>&1 &
         echo $! > \"$SEEN/task\"; wait $!",
    );
    put(
        &fakes.join("scancel"),
        "#!/bin/bash\necho \"$@\" >> \"$SEEN/scancel\"; kill -KILL \"$(cat \"$SEEN/task\")\"",
    );
    fakes
}

#[test]
fn the_slurm_example_waits_for_its_job_and_hands_on_what_it_says() {
    if !has(&["bash", "setsid", "tail"]) {
        return;
    }
    let scene = Scene::new();
    let fakes = slurm(scene.bench.folder.path());
    let script = scene.file("train.sbatch");
    put(&script, &format!("#!/bin/bash\necho progress 0.5 half; echo hello; {}", scene.copy()));
    let more = [format!("SEEN={}", scene.bench.folder.path().display())];
    let keys = Keys {
        command: with_fakes(&fakes, &more, "slurm.sh", &["--partition=gpu", script.to_str().unwrap()]),
        deadline: Some(Span(Duration::from_secs(3600))),
        ..Keys::default()
    };
    let (trained, heard) = scene.run(&keys);
    trained.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(heard.shares, [(500, "half".into())]);
    assert!(scene.told("command.log").contains("\nhello\n"));
    let options = fs::read_to_string(scene.file("sbatch")).unwrap();
    let options: Vec<&str> = options.lines().collect();
    assert_eq!((options[0], options[1], options[2]), ("--wait", "--parsable", "--export=ALL"));
    assert!(
        options.iter().any(|option| ["--time=59", "--time=60"].contains(option))
            && options[options.len() - 2..] == ["--partition=gpu", script.to_str().unwrap()],
        "{options:?}"
    );
    // Its exit code is the job's.
    put(&script, "#!/bin/bash\necho no GPU; exit 9");
    let fault = scene.run(&keys).0.unwrap_err().fault().clone();
    assert!(
        fault.code == Code::CommandFailed && fault.message.contains("exit code 9") && fault.message.contains("\n  no GPU"),
        "{fault}"
    );
    assert!(!scene.file("scancel").exists() && !scene.out.join("command/resume/job").exists());
}

#[test]
fn the_slurm_example_takes_its_job_back_at_a_stop() {
    if !has(&["bash", "setsid", "tail"]) {
        return;
    }
    let stage = Stage::of(|root| {
        let fakes = slurm(root);
        put(
            &root.join("train.sbatch"),
            "#!/bin/bash\necho running > \"$DELTA_GUARD_RESUME/running\"; sleep 1000 & wait",
        );
        let more = [format!("SEEN={}", root.display())];
        with_fakes(&fakes, &more, "slurm.sh", &[root.join("train.sbatch").to_str().unwrap()])
    });
    let worker = stage.start();
    assert_eq!((stage.has("running").as_str(), stage.has("job").as_str()), ("running\n", "4711\n"));
    kill_process_group(Pid::from_child(&worker), Signal::TERM).unwrap();
    assert!(matches!(Stage::outcome(worker), Outcome::Failed { .. }));
    let seen = |name: &str| fs::read_to_string(stage.bench.folder.path().join(name)).unwrap();
    assert_eq!(seen("scancel"), "4711\n");
    gone(seen("task").trim());
}

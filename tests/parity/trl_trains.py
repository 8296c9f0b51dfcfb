"""TRL's side of the parity test, run by a Python that has trl: `python trl_trains.py JOBS`.

JOBS is a JSON list: a trainer's name, folders of policy and reference, pairs as token ids, options of the trainer. Each
leaves in its `output` the log (`log.json`), the loss of each micro-batch (`losses.json`) and the gradients of the first
step.
"""

import json
import sys
from pathlib import Path

from datasets import Dataset
from safetensors.torch import save_file
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer


def tokenizer(size):
    words = {"<pad>": 0, "<eos>": 1, "<unk>": 2} | {f"w{number}": number for number in range(3, size)}
    plain = Tokenizer(WordLevel(words, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=plain, **special)


def text_rows(pairs):
    """Prompt, chosen and rejected as words; both answers end with the token that ends a text."""
    for prompt, *answers in pairs:
        words = [f"w{number}" for number in prompt]
        chosen, rejected = ("".join(f" w{number}" for number in answer[:-1]) + " <eos>" for answer in answers)
        yield {"prompt": " ".join(words), "chosen": chosen, "rejected": rejected}


class Listening(TrainerCallback):
    def __init__(self, output):
        self.output, self.log = output, []

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        if state.global_step == 0:
            save_file({n: p.grad.clone() for n, p in model.named_parameters()}, self.output / "gradients.safetensors")

    def on_log(self, args, state, control, logs=None, **_):
        if "loss" in logs:
            self.log.append({name: float(value) for name, value in logs.items()})


class Watched:
    """A trainer that keeps the loss of each micro-batch."""

    losses = ()

    def compute_loss(self, *places, **named):
        loss = super().compute_loss(*places, **named)
        self.losses = (*self.losses, loss.item())
        return loss


class Dpo(Watched, DPOTrainer):
    pass


class Kto(Watched, KTOTrainer):
    pass


class Cpo(Watched, CPOTrainer):
    pass


class Orpo(Watched, ORPOTrainer):
    def concatenated_forward(self, model, batch):
        """TRL adds the loss of prompt and answer; the answer's alone, as in the paper, is put in its place."""
        chosen_logps, *others = super().concatenated_forward(model, batch)
        return (chosen_logps, *others[:3], -chosen_logps.mean())


TRAINERS = {"dpo": (Dpo, DPOConfig), "kto": (Kto, KTOConfig), "cpo": (Cpo, CPOConfig), "orpo": (Orpo, ORPOConfig)}


def train(job):
    output = Path(job["output"])
    output.mkdir()
    trainer_class, options = TRAINERS[job["trainer"]]
    fixed = {"output_dir": str(output / "trainer"), "save_strategy": "no", "report_to": [], "logging_steps": 1}
    fixed |= {"use_cpu": True, "bf16": False, "disable_tqdm": True, "gradient_checkpointing": False}
    fixed |= {"dataloader_pin_memory": False, "train_sampling_strategy": "sequential", "max_length": 512}
    fixed |= {"lr_scheduler_type": "constant"}
    policy, reference = (
        AutoModelForCausalLM.from_pretrained(job[name], attn_implementation="eager") for name in ("model", "reference")
    )
    listening = Listening(output)
    trainer = trainer_class(
        policy,
        **({"ref_model": reference} if job["trainer"] in ("dpo", "kto") else {}),
        args=options(**fixed, **job["options"]),
        train_dataset=Dataset.from_list(list(text_rows(job["pairs"]))),
        processing_class=tokenizer(policy.config.vocab_size),
        callbacks=[listening],
    )
    trainer.train()
    (output / "log.json").write_text(json.dumps(listening.log))
    (output / "losses.json").write_text(json.dumps(trainer.losses))


if __name__ == "__main__":
    for job in json.loads(Path(sys.argv[1]).read_text()):
        train(job)

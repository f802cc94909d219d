"""experiment=albef_published against the paper's text and the published code."""

from alignlab.configs.check import check
from alignlab.configs.filling import filled

from omegaconf import DictConfig, OmegaConf

# Paper: arXiv:2107.07651, secs. 3.1 to 3.5. Code: salesforce/ALBEF b9727e4.
PUBLISHED = {
    "data.image_size": 256,  # "random image crops of resolution 256 x 256"
    "data.batch_size": 64,  # 512 on 8 GPUs
    "data.tokenizer": "bert-base-uncased",  # BERT_base; configs/config_bert.json: 30522 pieces
    "data.context_length": 25,  # Pretrain.py:59
    "data.append_sep": False,  # tokenization_bert.py:252
    "data.clean_captions": True,  # dataset/utils.py:19-39
    "data.crop_scale": [0.2, 1.0],  # dataset/__init__.py:16-25, as what follows
    "data.flip": True,
    "data.augment_operations": 2,  # "also apply RandAugment", without changes of colour
    "data.augment_magnitude": 7.0,
    "model.queue_size": 65536,
    "model.momentum": 0.995,
    "model.teach_from_step": 0,
    "model.momentum_ramp_steps": 0,
    "model.alpha": 0.4,
    "model.alpha_ramp_epochs": 1.0,  # "from 0 to 0.4 within the 1st epoch"
    "model.alpha_ramp_steps": 0,
    "model.fuse_from_step": 0,
    "model.mask_probability": 0.15,
    "model.itm_weight": 1.0,  # L = L_itc + L_mlm + L_itm
    "model.mlm_weight": 1.0,
    "model.net.temperature": 0.07,  # model_pretrain.py:57
    "model.net.encoder.embed_dim": 256,
    "model.net.encoder.text_layers": 6,
    "model.net.encoder.fusion_layers": 6,
    "model.net.encoder.text_width": 768,
    "model.net.encoder.heads": 12,
    "model.net.encoder.dropout": 0.1,  # configs/config_bert.json
    "model.net.encoder.attention_dropout": 0.1,
    "model.net.encoder.text_weights": "bert-base-uncased",
    "model.net.encoder.vision.name": "deit_base_patch16_224",
    "model.net.encoder.vision.pretrained": True,
    "model.net.encoder.directed_heads": False,
    "model.net.encoder.late_interaction_dim": 0,
    "model.net.encoder.fusion_positions": False,
    "optim._target_": "alignlab.optim.adamw.adamw",
    "optim.lr": 1e-4,
    "optim.warmup_steps": 1000,  # the code's: 2000
    "optim.warmup_lr": 1e-5,  # configs/Pretrain.yaml:21
    "optim.min_lr": 1e-5,
    "optim.schedule": "cosine",
    "optim.weight_decay": 0.02,
    "trainer.max_epochs": 30,
    "trainer.max_steps": -1,
    "trainer.gradient_clip_val": None,
}


def test_albef_published_is_as_published(composed) -> None:
    cfg: DictConfig = filled(
        composed("experiment=albef_published", "data.annotations=[coco.json,vg.json,sbu.json,cc.json]")
    )
    check(cfg)
    found = {key: OmegaConf.select(cfg, key) for key in PUBLISHED}
    found = {key: list(value) if OmegaConf.is_config(value) else value for key, value in found.items()}
    assert found == PUBLISHED
    # What follows the data: nothing in the file is a number of steps that belongs to four million pictures.
    assert (
        cfg.trainer.val_check_interval == 1.0 and cfg.trainer.check_val_every_n_epoch == 1 and cfg.data.max_val == 5000
    )

# SPDX-License-Identifier: Apache-2.0
"""The names that a config may use: chosen by their signatures, as names that run nothing which an argument could name.

Whatever isn't listed is not known to be safe. The lists hold what this package's configs and the classification bundles
of the MONAI Model Zoo need; add a name after reading what each of its arguments can do.
"""

from __future__ import annotations

import re
from collections.abc import Collection

# module -> its names; "Load(d)" stands for Load and Loadd
_NAMES = {
    "builtins": """abs all any bool bytes complex dict divmod enumerate filter float frozenset int isinstance iter len
        list map max min next open pow print range repr reversed round set setattr slice sorted str sum tuple zip""",
    "datetime": "date datetime timedelta",
    "dual_skd": """DualModelEvaluator DualModelTask DualModelTrainer EvaluationResult InferenceResult Schedule
        SelfDistillationLoss TrainingResult load_model""",
    "dual_skd.api.results": "say",
    "dual_skd.data": """AugmentBatch BatchAugment DEMO_NAMES DataSource TolerantDataset cached_dataset
        choose_window demo_classes describe find_images image_transforms load_evaluation_records load_records
        loader_workers look_at_sample paired paths_of patients_of refuse_unexpected save_split""",
    "dual_skd.errors": "show_input_errors_plainly",
    "dual_skd.evaluation": "MeasuredImages evaluation_name",
    "dual_skd.evaluation.report": "ReportWriter",
    "dual_skd.evaluation.robustness": "RobustnessRecorder",
    "dual_skd.networks": "build_network require_architecture",
    "dual_skd.networks.pretrained": "require_files",
    "dual_skd.options": "evaluation prediction settings training weight_files",
    "dual_skd.runs": "MetricsRecorder score",
    "dual_skd.runs.bad_numbers": "tensorboard_scalars",
    "dual_skd.runs.best_model": "BestModelSaver",
    "dual_skd.runs.checkpoint": "Checkpoints find_checkpoint",
    "dual_skd.runs.command_line": "refuse_unknown",
    "dual_skd.runs.devices": "pick_device to_device",
    "dual_skd.runs.distributed": """RandomPerProcess SetEpoch indices_of_rank init_processes items_of_rank
        on_rank_zero parallel""",
    "dual_skd.runs.lock": "hold release",
    "dual_skd.runs.model_file": "auxiliary_temperature conformal_rule load_auxiliary load_begun temperature_of",
    "dual_skd.runs.places": "bundle_root find_model",
    "dual_skd.runs.random_state": "ResumableSampler paired",
    "dual_skd.runs.record": "RunRecord",
    "dual_skd.serving.dicom_sr": "StructuredReportWriter",
    "dual_skd.serving.monai_label": "labelled_data model_home publish run_home",
    "dual_skd.serving.torch_predictor": "TorchPredictor",
    "dual_skd.serving.writers": "ExplanationWriter PredictionWriter",
    "dual_skd.training.label_free": "LabelFreeHeads LabelFreeTask",
    "dual_skd.training.losses": "LogitAdjustedLoss TeachingLoss classification_loss",
    "dual_skd.training.progress": "EvaluationProgress TrainingProgress",
    "dual_skd.training.schedule": "refuse_rounds",
    "dual_skd.training.start": "initialise_pair",
    "dual_skd.training.teacher": "load_teacher teacher_architecture",
    "glob": "glob",
    "ignite.engine": "Events",
    "ignite.handlers": "EarlyStopping TerminateOnNan",
    "ignite.metrics": "Accuracy Loss MeanAbsoluteError MeanPairwiseDistance MeanSquaredError Precision Recall ROC_AUC",
    "json": "load loads",
    "logging": "DEBUG INFO WARNING ERROR",
    "math": "ceil exp floor log pi sqrt",
    "monai.apps.nuclick.transforms": """AddClickSignalsd AddLabelAsGuidanced AddPointGuidanceSignald SetLabelClassd
        SplitLabeld""",
    "monai.data": """CacheDataset DataLoader Dataset DistributedSampler ThreadDataLoader list_data_collate
        load_decathlon_datalist pad_list_data_collate partition_dataset""",
    "monai.data.utils": "list_data_collate no_collation pad_list_data_collate",
    "monai.data.wsi_datasets": "MaskedPatchWSIDataset PatchWSIDataset",
    "monai.engines": "SupervisedEvaluator SupervisedTrainer",
    "monai.handlers": """CheckpointLoader CheckpointSaver ClassificationSaver ConfusionMatrix EarlyStopHandler
        IgniteMetricHandler LogfileHandler LrScheduleHandler MeanAbsoluteError MeanDice MeanIoUHandler
        MeanSquaredError MetricLogger MetricsSaver ProbMapProducer ROCAUC StatsHandler TensorBoardStatsHandler
        ValidationHandler from_engine""",
    "monai.inferers": "SimpleInferer SliceInferer SlidingWindowInferer",
    "monai.losses": "DiceCELoss DiceFocalLoss DiceLoss FocalLoss",
    "monai.networks": "trt_compile",
    "monai.networks.nets": """BasicUNet DenseNet DenseNet121 DenseNet169 DenseNet201 DenseNet264 EfficientNetBN ResNet
        SEResNet50 SegResNet TorchVisionFCModel UNet ViT resnet10 resnet18 resnet34 resnet50""",
    "monai.optimizers": "Novograd WarmupCosineSchedule",
    "monai.transforms": """Activations(d) AsDiscrete(d) CastToType(d) CenterSpatialCrop(d) Compose CopyItemsd
        CropForeground(d) DeleteItemsd DivisiblePad(d) EnsureChannelFirst(d) EnsureType(d) Flip(d) GaussianSmooth(d)
        GridSplit(d) Invertd KeepLargestConnectedComponent(d) Lambda(d) LoadImage(d) MapLabelValue(d) MedianSmooth(d)
        NormalizeIntensity(d) OneOf Orientation(d) RandAdjustContrast(d) RandAffine(d) RandAxisFlip(d)
        RandBiasField(d) RandFlip(d) RandGaussianNoise(d) RandGaussianSmooth(d) RandHistogramShift(d) RandRotate(d)
        RandRotate90(d) RandScaleIntensity(d) RandShiftIntensity(d) RandSpatialCrop(d) RandSpatialCropSamples(d)
        RandTorchVisiond RandZoom(d) Resize(d) ResizeWithPadOrCrop(d) Rotate90(d) SaveClassificationd SaveImage(d)
        ScaleIntensity(d) ScaleIntensityRange(d) ScaleIntensityRangePercentiles(d) SelectItemsd Spacing(d)
        SpatialPad(d) SplitDim(d) SqueezeDim(d) ToDevice(d) ToNumpy(d) ToTensor(d) TorchVision(d) Transpose(d)""",
    "monai.utils": """CommonKeys GridSampleMode GridSamplePadMode InterpolateMode ensure_tuple ensure_tuple_rep first
        set_determinism""",
    "numpy": """abs arange argmax array asarray concatenate exp float16 float32 float64 int16 int32 int64 max mean min
        ones pi sqrt stack std sum uint8 where zeros""",
    "os.environ": "get",
    "os.path": """abspath basename dirname exists expanduser getsize isdir isfile join normpath realpath relpath split
        splitext""",
    "pathlib": "Path PurePath",
    "sys": "maxsize",
    "timm": "create_model",
    "torch": """FloatTensor Generator Tensor argmax bfloat16 bool cat device exp float float16 float32 float64
        from_numpy full int int16 int32 int64 int8 load long max mean min nan_to_num ones rand randn sigmoid softmax
        stack tensor uint8 where zeros""",
    "torch.cuda": "device_count is_available set_device",
    "torch.distributed": "destroy_process_group get_rank get_world_size init_process_group is_available is_initialized",
    "torch.nn": """AdaptiveAvgPool2d BCEWithLogitsLoss CrossEntropyLoss Dropout Flatten Identity KLDivLoss L1Loss
        Linear MSELoss ReLU Sequential Sigmoid Softmax""",
    "torch.nn.functional": "cross_entropy log_softmax one_hot sigmoid softmax",
    "torch.nn.parallel": "DistributedDataParallel",
    "torch.optim": "Adam AdamW RMSprop SGD",
    "torch.optim.lr_scheduler": """CosineAnnealingLR CosineAnnealingWarmRestarts ExponentialLR LambdaLR MultiStepLR
        PolynomialLR ReduceLROnPlateau StepLR""",
    "torch.utils.data": "DataLoader RandomSampler SequentialSampler Subset WeightedRandomSampler",
    "torch.utils.data.distributed": "DistributedSampler",
    "torch.utils.tensorboard": "SummaryWriter",
    "torchvision": "",
}
# methods and fields of whatever they stand behind: none runs code, writes a file or reaches the network in any class
# that the names above give; nor do constants, in capitals
ATTRIBUTES = frozenset(
    """add_event_handler alpha amp apply argmax array as_dict astype attach auxiliary auxiliary_probabilities batch
    bool class_names class_weights clone close cpu cuda data dataset detach device dim double dtype endswith epoch
    epoch_length eval exists exp expand finished flatten float for_network get half_width hash index input_shape int
    is_dir is_file isdigit isoformat item items iteration join keep_last keys logger long lower lstrip manual_seed
    max max_epochs mean measured meta metrics min module multi_label name named_parameters ndim network now num_classes
    numel numpy optimizer output parameters parent permute preprocessing read read_text requires_grad reshape
    resolve rsplit rstrip rules run scaler setLevel shape sigmoid size softmax source split splitlines splits sqrt
    squeeze startswith state state_dict std stem strftime strip student student_probabilities suffix sum summary
    times to tolist train transform transpose unlabelled unsqueeze upper val values view zero_grad""".split()
)
_NO_DOWNLOAD = "pretrained=(False|None) ..."
_PT, _TABLE = r"'[\w.-]+\.pth?'", r"'[\w.-]+\.(csv|txt)'"
_WSI = """data patch_size * reader='(cuCIM|OpenSlide|TiffFile)' patch_level mask_level transform include_label
    center_location additional_meta_keys"""
_LOAD = """* reader='(ITK|PIL|Nibabel|Numpy|Pydicom|Nrrd)Reader' dtype image_only ensure_channel_first simple_keys
    prune_meta_pattern prune_meta_sep expanduser"""  # what else is given goes to the reader, which could unpickle
# of these only some arguments are taken, here in their order: after "*" by name alone, and "..." takes all others.
# "name=PATTERN" holds what is written there to a regular expression, "name:.csv" to a text that ends so, "name/" to a
# path of this computer (TensorBoard takes addresses), "name@" to what keeps no names of files in its state
_ARGUMENTS = {
    "builtins.open": "file mode='r[bt]?' * encoding",
    "builtins.setattr": r"object=torch\.backends\.cudnn name='(benchmark|deterministic)' value",
    "dual_skd.DualModelTrainer": "* compile_kwargs=None ...",
    "dual_skd.DualModelEvaluator": "* compile_kwargs=None ...",
    "dual_skd.data.save_split": "data path:.json",
    "dual_skd.runs.MetricsRecorder": "* predictions:.csv ...",
    "dual_skd.runs.best_model.BestModelSaver": "* predictions:.csv ...",
    "dual_skd.serving.writers.PredictionWriter": "path:.csv * images rules",
    "dual_skd.training.start.initialise_pair": "student auxiliary * report_path:.csv ...",
    "json.load": "fp",
    "json.loads": "s",
    "monai.data.wsi_datasets.MaskedPatchWSIDataset": _WSI,
    "monai.data.wsi_datasets.PatchWSIDataset": _WSI,
    "monai.engines.SupervisedEvaluator": "device val_data_loader network * compile_kwargs=None ...",
    "monai.engines.SupervisedTrainer": "device max_epochs train_data_loader network * compile_kwargs=None ...",
    "monai.handlers.CheckpointLoader": "load_path load_dict@ * name map_location strict strict_shape",
    "monai.handlers.CheckpointSaver": f"save_dir save_dict * final_filename={_PT} key_metric_filename={_PT} ...",
    "monai.handlers.ClassificationSaver": f"output_dir filename={_TABLE} * saver=None ...",
    "monai.handlers.LogfileHandler": r"output_dir filename='[\w.-]+\.(log|txt)' * formatter=None ...",
    "monai.networks.trt_compile": "model base_path * args",
    "monai.handlers.TensorBoardStatsHandler": "summary_writer * log_dir/ ...",
    "monai.handlers.MetricsSaver": "save_dir metrics metric_details * output_type='csv' ...",
    **{
        f"monai.networks.nets.{name}": f"spatial_dims in_channels out_channels * {_NO_DOWNLOAD}"
        for name in ("DenseNet121", "DenseNet169", "DenseNet201", "DenseNet264")
    },
    "monai.networks.nets.EfficientNetBN": f"model_name * {_NO_DOWNLOAD}",
    "monai.networks.nets.SEResNet50": f"* {_NO_DOWNLOAD}",
    **{f"monai.networks.nets.resnet{depth}": f"* {_NO_DOWNLOAD}" for depth in (10, 18, 34, 50)},
    "monai.networks.nets.TorchVisionFCModel": """model_name num_classes dim in_channels use_conv pool bias *
        pretrained=(False|None) weights=None fc_name node_name""",
    "monai.transforms.LoadImage": _LOAD,
    "monai.transforms.LoadImaged": f"keys {_LOAD} meta_keys meta_key_postfix overwriting allow_missing_keys",
    **{
        f"monai.transforms.{name}": f"{keys}name='[A-Z][A-Za-z]+' ..."
        for name, keys in (("TorchVision", ""), ("TorchVisiond", "keys "), ("RandTorchVisiond", "keys "))
    },
    "monai.transforms.SaveClassificationd": f"keys * filename={_TABLE} saver=None ...",
    **{
        f"monai.transforms.{name}": r"* output_ext='\.(nii|nii\.gz|png|jpg|tif|json)' output_format='' writer=None "
        "folder_layout=None output_name_formatter=None ..."
        for name in ("SaveImage", "SaveImaged")
    },
    "timm.create_model": r"model_name='[\w.]+' pretrained=False * num_classes in_chans drop_rate img_size",
    "torch.distributed.init_process_group": "backend='(nccl|gloo)'",
    "torch.load": "f map_location * weights_only=True",
    "torch.utils.tensorboard.SummaryWriter": "log_dir/ * purge_step",
}
# wherever they stand as a key: they name a pickle, a compiler or a network's source
REFUSED_KEYS = frozenset(
    "allow_pickle checkpoint_path compile_kwargs pickle_module pretrained_cfg pretrained_cfg_overlay".split()
)


def _both(word: str) -> list[str]:
    return [word[:-3], word[:-3] + "d"] if word.endswith("(d)") else [word]


KNOWN = frozenset(
    f"{module}.{name}" for module, words in _NAMES.items() for word in words.split() for name in _both(word)
)
# what an import may name: the modules above and the packages that they lie in
MODULES = frozenset(".".join(module.split(".")[:n]) for module in _NAMES for n in range(1, module.count(".") + 2))
_SHORT = {name.rsplit(".", 1)[1]: name for name in sorted(KNOWN) if name.startswith("monai.")}


def full_name(target: str) -> str:
    """The whole name of a ``_target_``: MONAI finds a name without dots among its own."""
    return target if "." in target else _SHORT.get(target, target)


def split_known(name: str, allowed: Collection[str]) -> tuple[str, list[str]]:
    """A dotted name as the longest known name in front and the attributes behind it; "" where no name is known.

    Args:
        name: the whole name, from the package on.
        allowed: packages, modules and names beside the known ones, with all that is in them.
    """
    parts = name.split(".")
    if any(name == one or name.startswith(f"{one}.") for one in allowed):
        return name, []
    for end in range(len(parts), 1, -1):
        if ".".join(parts[:end]) in KNOWN:
            return ".".join(parts[:end]), parts[end:]
    return "", parts


class Signature:
    """The arguments of a callable that are taken.

    Args:
        text: of ``_ARGUMENTS``.
    """

    def __init__(self, text: str) -> None:
        words = text.split()
        self.others = words[-1] == "..."
        words = words[:-1] if self.others else words
        self.rules = {match[1]: match[2] for word in words if (match := re.match(r"(\w+)(.*)", word))}
        self.places = [re.split("[=:/@]", word)[0] for word in (words[: words.index("*")] if "*" in words else words)]


SIGNATURES = {name: Signature(text) for name, text in _ARGUMENTS.items()}

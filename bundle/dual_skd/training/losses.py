# SPDX-License-Identifier: Apache-2.0
"""Losses on the labels, on another network's answers, and on two views of an image.

Each is a mean over the batch of one number per image, so their sum has the same scale for any batch size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import torch
import torch.nn.functional as F
from monai.losses import FocalLoss
from monai.networks.utils import one_hot
from torch import Tensor, nn

from dual_skd.errors import InputError
from dual_skd.options.choices import Loss, UnlabelledLoss

LOSSES = get_args(Loss)
UNLABELLED_LOSSES = get_args(UnlabelledLoss)


class SelfDistillationLoss(nn.Module):
    """Divergence of the learner's softened prediction from its teacher's (Hinton et al. 2015).

        T^2 * KL( softmax(z_teacher / T) || softmax(z_learner / T) )

    The factor T^2 keeps the size of the gradient independent of the temperature. No gradient reaches the teacher.
    With ``multi_label`` every class is a yes/no question of its own: the Bernoulli divergences are summed over classes.

    Args:
        temperature: T > 0; above 1 it shows the learner how the teacher ranks the wrong classes.
        multi_label: sigmoid per class instead of one softmax.

    Raises:
        InputError: the temperature is not positive.

    Example:
        >>> loss = SelfDistillationLoss(temperature=2.0)
        >>> float(loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]])))
        0.0
    """

    def __init__(self, temperature: float = 2.0, multi_label: bool = False) -> None:
        super().__init__()
        if not temperature > 0:
            raise InputError(f"temperature must be above 0, found {temperature}; 2.0 is the usual choice.")
        self.temperature = float(temperature)
        self.multi_label = multi_label

    def forward(self, learner_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Compares logits (N, K) of the learner with logits (N, K) of its teacher.

        Raises:
            InputError: the shapes differ.
        """
        self.require_same_classes(learner_logits, teacher_logits)
        # float32 whatever autocast chose: probabilities near 0 and 1 don't survive half precision
        learner = learner_logits.float() / self.temperature
        teacher = teacher_logits.detach().float() / self.temperature
        divergence = _bernoulli_divergence if self.multi_label else _categorical_divergence
        return self.temperature**2 * divergence(learner, teacher)

    def terms(self, learner_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """The divergence of each image (N, 1), or of each of its classes (N, K) where it may have several."""
        learner, teacher = learner_logits / self.temperature, teacher_logits / self.temperature
        if self.multi_label:
            return self.temperature**2 * _bernoulli_terms(learner, teacher)
        terms = F.kl_div(learner.log_softmax(1), teacher.log_softmax(1), reduction="none", log_target=True)
        return self.temperature**2 * terms.sum(1, keepdim=True)

    @staticmethod
    def require_same_classes(learner_logits: Tensor, teacher_logits: Tensor) -> None:
        """Raises :class:`InputError` for logits of different shapes."""
        if learner_logits.shape != teacher_logits.shape:
            raise InputError(
                f"the two networks must predict the same classes: found logits {tuple(learner_logits.shape)} and "
                f"{tuple(teacher_logits.shape)}; build both with the same num_classes."
            )

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, multi_label={self.multi_label}"


def _categorical_divergence(learner: Tensor, teacher: Tensor) -> Tensor:
    return F.kl_div(learner.log_softmax(1), teacher.log_softmax(1), reduction="batchmean", log_target=True)


def _bernoulli_divergence(learner: Tensor, teacher: Tensor) -> Tensor:
    return _bernoulli_terms(learner, teacher).flatten(1).sum(1).mean()


def _bernoulli_terms(learner: Tensor, teacher: Tensor) -> Tensor:
    yes = teacher.sigmoid() * (F.logsigmoid(teacher) - F.logsigmoid(learner))
    no = (-teacher).sigmoid() * (F.logsigmoid(-teacher) - F.logsigmoid(-learner))
    return yes + no


class TeachingLoss(nn.Module):
    """What a network learns of another one on images without labels.

        hard:  mean over images of  1[max p_teacher >= c] * CE( z_learner, argmax p_teacher )
        soft:  mean over images of  1[max p_teacher >= c] * T^2 * KL( p_teacher,T || p_learner,T )

    ``hard`` is cross pseudo supervision where two networks teach each other (Chen et al. 2021), and pseudo-labelling
    where a network is its own teacher (Lee 2013); with a confidence c it has the form of FixMatch (Sohn et al. 2020).
    ``soft`` is :class:`SelfDistillationLoss`. No gradient reaches the teacher. All images count in the mean, so fewer
    confident ones weigh less.

    With several labels per image every class is a question of its own, whose confidence is max(p, 1 - p): a sum over
    classes of the terms that are confident.

    Args:
        form: ``hard`` or ``soft``.
        confidence: c in [0, 1); 0 takes all images.
        distillation: the soft form, with its temperature, and whether images may have several labels; default
            ``SelfDistillationLoss()``.

    Raises:
        InputError: an argument is out of its range.
    """

    def __init__(
        self, form: str = "hard", *, confidence: float = 0.0, distillation: SelfDistillationLoss | None = None
    ) -> None:
        super().__init__()
        if form not in UNLABELLED_LOSSES:
            raise InputError(f"unknown unlabelled_loss {form!r}; choose one of {', '.join(UNLABELLED_LOSSES)}.")
        if not 0 <= confidence < 1:
            raise InputError(f"unlabelled_confidence must lie in [0, 1), found {confidence}; 0 takes all images.")
        self.form = form
        self.confidence = confidence
        self.distillation = distillation or SelfDistillationLoss()

    def forward(self, learner_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Compares logits (N, K) of the learner with logits (N, K) of its teacher.

        Raises:
            InputError: the shapes differ.
        """
        self.distillation.require_same_classes(learner_logits, teacher_logits)
        learner, teacher = learner_logits.float(), teacher_logits.detach().float()
        if self.form == "soft":
            terms = self.distillation.terms(learner, teacher)
        elif self.distillation.multi_label:
            terms = F.binary_cross_entropy_with_logits(learner, (teacher > 0).float(), reduction="none")
        else:
            terms = F.cross_entropy(learner, teacher.argmax(1), reduction="none")[:, None]
        # terms that don't count are left out, not multiplied by 0, which would keep their infinities
        terms = torch.where(self.is_confident(teacher), terms, torch.zeros_like(terms))
        return terms.sum(1).mean()

    def is_confident(self, teacher_logits: Tensor) -> Tensor:
        """Whether an image counts (N, 1), or each of its classes (N, K) where it may have several."""
        if self.distillation.multi_label:
            return teacher_logits.abs().sigmoid() >= self.confidence
        return teacher_logits.softmax(1).amax(1, keepdim=True) >= self.confidence

    def extra_repr(self) -> str:
        return f"{self.form}, confidence={self.confidence}"


def view_loss(prediction_1: Tensor, target_2: Tensor, prediction_2: Tensor, target_1: Tensor) -> Tensor:
    """Returns the disagreement of two views of each image, 2 - 2 cos, summed over both directions (Grill et al. 2020).

    0 when every prediction points where its target does, 4 when they are orthogonal, 8 when they are opposed.
    No gradient reaches the targets.

    Args:
        prediction_1: from view 1 (N, F).
        target_2: from view 2, what ``prediction_1`` should be.
        prediction_2: from view 2.
        target_1: from view 1.
    """
    return _cosine_distance(prediction_1, target_2) + _cosine_distance(prediction_2, target_1)


def _cosine_distance(prediction: Tensor, target: Tensor) -> Tensor:
    return (2 - 2 * F.cosine_similarity(prediction.float(), target.detach().float(), dim=1)).mean()


class FocalClassificationLoss(nn.Module):
    """MONAI's softmax focal loss (Lin et al. 2017) for one integer label per image.

    Summed over classes and averaged over images as cross-entropy is, which it equals at ``gamma`` 0.

    Args:
        class_weights: one weight per class; the mean is weighted as in :class:`torch.nn.CrossEntropyLoss`.
        gamma: how strongly images with confident, correct answers are weighted down.
    """

    def __init__(self, class_weights: Sequence[float] | Tensor | None = None, gamma: float = 2.0) -> None:
        super().__init__()
        self.focal = FocalLoss(gamma=gamma, use_softmax=True, reduction="none")
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", _as_weights(class_weights))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Scores logits (N, K) against labels (N,) of class indices."""
        labels = labels.flatten().long()
        per_image = self.focal(logits, one_hot(labels[:, None], num_classes=logits.shape[1])).sum(1)
        if self.class_weights is None:
            return per_image.mean()
        weights = self.class_weights.to(per_image.device)[labels]
        return (weights * per_image).sum() / weights.sum()


class MultiLabelLoss(nn.Module):
    """Negative log-likelihood of a set of yes/no labels: binary cross-entropy summed over classes.

    PyTorch's loss is the mean over classes. The sum has the scale of the multi-label :class:`SelfDistillationLoss`, so
    ``skd_weight`` means the same for any number of classes.

    Args:
        class_weights: one factor per class on the term of the positive images.
        label_smoothing: moves 0 and 1 towards one half by half of this amount.
    """

    def __init__(self, class_weights: Sequence[float] | Tensor | None = None, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", _as_weights(class_weights))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Scores logits (N, K) against labels (N, K) of zeros and ones."""
        targets = labels.to(logits.dtype) * (1 - self.label_smoothing) + self.label_smoothing / 2
        weights = None if self.class_weights is None else self.class_weights.to(logits.device)
        loss = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights, reduction="none")
        return loss.flatten(1).sum(1).mean()


class LogitAdjustedLoss(nn.Module):
    """Another loss, of the logits plus the logarithm of each class's frequency in training (Menon et al. 2021).

        loss(z + strength * log(prior), y)

    The constants take up the frequencies. The logits themselves are then those of equally frequent classes: their
    largest gives the best balanced accuracy.

    Args:
        loss: of logits (N, K) and labels.
        class_weights: K weights that balance the classes: the inverse of the prior, up to a factor.
        strength: 1 for all of it, 0 for none.

    Raises:
        InputError: the loss has class weights, which would correct for the frequencies a second time.
    """

    def __init__(self, loss: nn.Module, class_weights: Sequence[float] | Tensor, strength: float = 1.0) -> None:
        super().__init__()
        if any(getattr(loss, name, None) is not None for name in ("weight", "class_weights")):
            raise InputError(
                "class_weights and logit_adjustment both correct for how frequent the classes are, found both; set "
                "class_weights to false, or logit_adjustment to 0."
            )
        self.loss = loss
        self.offsets: Tensor
        self.register_buffer("offsets", -strength * torch.as_tensor(class_weights, dtype=torch.float32).log())

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Scores logits (N, K) against labels."""
        return self.loss(logits + self.offsets, labels)


def _as_weights(class_weights: Sequence[float] | Tensor | None) -> Tensor | None:
    if class_weights is None:
        return None
    weights = torch.as_tensor(class_weights, dtype=torch.float32)
    if weights.ndim != 1 or not bool((weights >= 0).all()) or not bool(weights.any()):
        raise InputError(
            f"class_weights must be one number per class, none below 0 and not all 0, found {weights.tolist()}; "
            "correct them or set class_weights to null."
        )
    return weights


def classification_loss(
    name: str = "cross_entropy",
    class_weights: Sequence[float] | Tensor | None = None,
    label_smoothing: float = 0.0,
    multi_label: bool | None = None,
) -> nn.Module:
    """Builds the loss on the labels.

    Args:
        name: ``cross_entropy`` or ``focal`` for one class per image, labels (N,); ``bce`` for several, labels (N, K).
        class_weights: one weight per class, None for equal ones.
        label_smoothing: share of the target spread over the classes, in [0, 1); not with ``focal``.
        multi_label: whether the images have several labels each, where that is known.

    Raises:
        InputError: the name is unknown, or an option or the kind of labels doesn't fit.
    """
    if multi_label is not None and name in LOSSES and multi_label != (name == "bce"):
        labels, right = ("several labels", "bce") if multi_label else ("one label", "cross_entropy or focal")
        raise InputError(f"loss {name!r} doesn't fit images of {labels} each; use {right}, or leave loss out.")
    if not 0 <= label_smoothing < 1:
        raise InputError(f"label_smoothing must lie in [0, 1), found {label_smoothing}; 0.1 is the usual choice.")
    if name == "cross_entropy":
        return nn.CrossEntropyLoss(weight=_as_weights(class_weights), label_smoothing=label_smoothing)
    if name == "focal":
        if label_smoothing:
            raise InputError("the focal loss takes no label smoothing; set label_smoothing to 0 or use cross_entropy.")
        return FocalClassificationLoss(class_weights)
    if name == "bce":
        return MultiLabelLoss(class_weights, label_smoothing)
    raise InputError(f"unknown loss {name!r}; choose one of {', '.join(LOSSES)}.")

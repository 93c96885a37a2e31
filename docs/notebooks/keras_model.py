# %% [markdown]
# # A Keras model, from training to explanations
#
# A small Keras network learns to tell eight kinds of drawn birds apart (`craft_onnx_models.birds`). Then it becomes
# ONNX, is cut in two, and says with its concepts what it goes by. Of drawn birds the truth is known: they can be drawn
# again without a wing, and the effect on the model is what the concepts are compared with.

# %%
import keras
import numpy as np

import craft_onnx as co
from craft_onnx_models import birds

TRAINING, EPOCHS = 4000, 12
SHOWN = 60  # pictures to explain
EXPLAINED = birds.TAGGED  # the coast tern

# %%
drawn = birds.draw_many(TRAINING, seed=100)
pictures, labels = birds.pictures(drawn), np.array([bird.label for bird in drawn])
print(pictures.shape, "classes:", *birds.class_names())

keras.utils.set_random_seed(0)
layers = keras.layers
net = keras.Sequential(
    [
        keras.Input((96, 96, 3)),
        layers.Conv2D(16, 5, 2, "same", activation="relu", name="first"),
        layers.Conv2D(32, 3, 2, "same", activation="relu", name="second"),
        layers.Conv2D(48, 3, 1, "same", activation="relu", name="third"),
        layers.Conv2D(64, 3, 1, "same", activation="relu", name="last"),
        layers.GlobalAveragePooling2D(name="pool"),
        layers.Dense(len(birds.class_names()), activation="softmax", name="classes"),
    ]
)
net.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
history = net.fit(pictures / np.float32(127.5) - 1, labels, batch_size=32, epochs=EPOCHS, verbose=0)
test = birds.draw_many(400, seed=200)
x_test = birds.pictures(test) / np.float32(127.5) - 1
accuracy = net.evaluate(x_test, np.array([bird.label for bird in test]), verbose=0)[1]
print(f"accuracy on new pictures: {accuracy:.2f}")

# %% [markdown]
# ## Convert and split
#
# The conversion is compared with Keras at two batch sizes. The Softmax goes: CRAFT works on logits. `last` and
# `second` are the layers to cut at, by the names that they have in Keras; for each, h(g(x)) = f(x) is proven.

# %%
from craft_onnx.runtime.bundle import create_bundle
from craft_onnx_converters import convert

conversion = convert(net, preprocessing="tf")
print("ONNX against Keras, by batch size:", {batch: f"{error:.0e}" for batch, error in conversion.errors.items()})
print("softmax cut off:", conversion.description.softmax_removed)
bundle = create_bundle(conversion.model, ["last", "second"], "bundle", force=True, names=birds.class_names())

# %%
model = co.load("bundle")  # onnxruntime and NumPy: Keras is not needed from here on
print(model.cut.name, model.cut.shape, model.layout)
shown = birds.draw_many(SHOWN, [EXPLAINED], seed=1)
x = model.preprocess([bird.picture for bird in shown])
predicted = model.predict(x).argmax(axis=1)
kept = [bird for bird, label in zip(shown, predicted, strict=True) if label == EXPLAINED]
x = model.preprocess([bird.picture for bird in kept])
print(f"predicted as {birds.class_names()[EXPLAINED]}: {len(kept)} of {len(shown)}")

# %% [markdown]
# ## Concepts
#
# As in Xplique. The concepts are those of the coast tern.

# %%
craft = co.Craft(model, number_of_concepts=6, patch_size=32)
crops, crops_u, w = craft.fit(x, class_id=EXPLAINED)
importances = craft.estimate_importance()
print(crops.shape, crops_u.shape, w.shape, "relative error", round(craft.factorisation_.relative_error, 2))
craft.plot_concepts_importances()

# %%
craft.plot_concepts_crops(nb_crops=5, nb_most_important_concepts=4)

# %%
craft.plot_image_concepts(x[0], nb_most_important_concepts=4)

# %%
craft.plot_concept_attribution_maps(x[:10], nb_most_important_concepts=4)

# %% [markdown]
# ## Is it true?
#
# Of drawn birds the truth is known. Draw the same pictures without one part, and see what the logit loses; and see
# which part the map of each concept lies on: its share of the map over its share of the picture.

# %%
top = int(importances.argmax())


def worth(part):
    """Mean change of the logit when a part is not drawn."""
    without = model.preprocess([bird.without(part).picture for bird in kept])
    return float((model.predict(x) - model.predict(without))[:, EXPLAINED].mean())


effects = {part: round(worth(part), 2) for part in birds.PARTS}
print("what a part is worth, in logits:", dict(sorted(effects.items(), key=lambda pair: -pair[1])))
maps = np.stack(model.to_picture(craft.transform(x), [(96, 96)] * len(kept)))  # (pictures, 96, 96, concepts)
for i in np.argsort(importances)[::-1][:4]:
    lifts = {}
    for part in birds.PARTS:
        mask = np.stack([bird.masks[part] for bird in kept])
        lifts[part] = float((maps[..., i] * mask).sum() / maps[..., i].sum() / mask.mean()) if mask.any() else 0.0
    best = max(lifts, key=lambda part: lifts[part])
    print(
        f"concept {i}: importance {importances[i]:.2f}, lies on the {best}, {lifts[best]:.0f} times more than by chance"
    )

# %% [markdown]
# The part that is worth most is the one that the most important concept lies on.
#
# A word on what this does not say. In these pictures the coast tern differs from the island tern in nothing but a leg
# tag, a trap in the training data. What tells the two apart is the difference of their logits, not the logit of one:

# %%
untagged = model.preprocess([bird.with_tag(False).picture for bird in kept])
logits, without = model.predict(x), model.predict(untagged)
change = (logits - without)[[bird.shows("tag") for bird in kept]].mean(axis=0)
print(f"the tag is worth {change[birds.TAGGED]:+.1f} to the coast tern, {change[birds.TWIN]:+.1f} to the island tern")
print("without the tag, predicted as the island tern:", f"{(without.argmax(axis=1) == birds.TWIN).mean():.0%}")

# %% [markdown]
# The network learned the tag as evidence *against* the island tern. No explanation of the coast tern's logit can show
# that: which logit is explained is part of the question. The demo model of the package is trained so that every logit
# answers for its class alone: there the tag is the most important concept (`craft-onnx demo`, and
# [docs/birds.md](../birds.md)).
#
# ## Which pixels
#
# A concept map has the raster of the activations. Any attribution method explains a concept in pixels; the gradient
# goes through the least squares by which coefficients are found.

# %%
from PIL import Image

from craft_onnx.show.attributions import attribution_overlay, attribution_sheet

one = kept[0]
methods = ("saliency", "integrated_gradients", "gradcam", "occlusion")
found = {name: craft.attribute(x[:1], concepts=top, method=name) for name in methods}
overlays = [attribution_overlay(one.enlarged(3), found[name].maps[0, 0]) for name in methods]
print({name: round(float(found[name].values[0, 0]), 3) for name in methods})
Image.fromarray(attribution_sheet(one.enlarged(3), overlays, ["picture", *methods], columns=5, side=200))

# %% [markdown]
# ## What the concept is made of
#
# Recursion: the crops in which the concept is strongest, at an earlier layer. The tree shows how important each part
# is for what it is a part of.

# %%
sub = craft.decompose(top, at="second", number_of_concepts=3)
print("importance for the concept:", sub.estimate_parent_importance(nb_design=16).round(2))
print("importance for the class:  ", sub.estimate_importance(nb_design=16).round(2))
craft.plot_concept_tree(nb_most_important_concepts=3, nb_crops=4)

# %%
craft.names_[top] = "wing"
sub.save()  # and what it is part of
print(co.Craft.load("bundle", EXPLAINED).summary()["concepts"][0])

# %% [markdown]
# ## Several classes
#
# `CraftManager` fits one Craft a class, on the pictures that the model predicts as it.

# %%
many = birds.draw_many(96, seed=2)
manager = co.CraftManager.from_model(
    model,
    inputs=model.preprocess([bird.picture for bird in many]),
    labels=[bird.label for bird in many],
    list_of_class_of_interest=[0, 4],
    number_of_concepts=5,
    patch_size=32,
)
manager.fit(nb_samples_per_class=50)
manager.estimate_importance()
manager.plot_concepts_crops(class_id=4, nb_crops=5, nb_most_important_concepts=3)

# %%
manager.plot_concepts_importances(class_id=4, nb_most_important_concepts=5)

# %% [markdown]
# ## g and h as they were
#
# A notebook written for `CraftTf` hands over two Keras models. That works as well, and gives the same concepts.

# %%
g = keras.Sequential([keras.Input((96, 96, 3)), *net.layers[:4]])
h = keras.Sequential([keras.Input((24, 24, 64)), *net.layers[4:]])
theirs = co.Craft(g, h, number_of_concepts=6, patch_size=32)
_, _, w_keras = theirs.fit(x, class_id=EXPLAINED)
print("cosines of the concepts with those of the bundle:", (w * w_keras).sum(axis=1).round(4))
# %% [markdown]
# This h ends in the Softmax, which the bundle's does not: importances would explain the probability of the class in
# place of its logit.

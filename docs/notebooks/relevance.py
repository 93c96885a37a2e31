# %% [markdown]
# # From "where" to "what": zennit-crp's quickstart on an ONNX file
#
# Concept Relevance Propagation carries the relevance of a prediction back through chosen channels alone, and shows
# what a channel stands for by the pictures to which it matters most (Achtibat et al. 2023). The first cells are the
# quickstart of [zennit-crp](https://github.com/rachtibat/zennit-crp), line by line: another import, another model
# (an ONNX file), its layer names; and NumPy sorts, where PyTorch did. No PyTorch is needed.
#
# The model tells eight kinds of drawn birds apart (`craft_onnx_models.birds`); of these birds all parts are known.

# %%
import numpy as np

import craft_onnx as co
from craft_onnx.relevance import (
    ChannelConcept,
    CondAttribution,
    EpsilonPlusFlat,
    FeatureVisualization,
    SequentialMergeBatchNorm,
    get_layer_names,
    plot_grid,
    vis_opaque_img,
)
from craft_onnx_models import birds

model = co.load(birds.model_path("shortcut"))
drawn = birds.draw_many(600, seed=3)
dataset = [(bird.picture, bird.label) for bird in drawn]
sample = birds.draw_many(1, [0], seed=8)[0]
data = model.preprocess(sample.picture)

# %% [markdown]
# ## Conditional attributions

# %%
# define LRP rules and canonizers in zennit
composite = EpsilonPlusFlat([SequentialMergeBatchNorm()])

# load CRP toolbox
attribution = CondAttribution(model)

# here, each channel is defined as a concept
# or define your own notion!
cc = ChannelConcept()

# get layer names of Conv2D and MLP layers
layer_names = get_layer_names(model, ["Conv", "Linear"])

# get a conditional attribution for channel 50 in layer features.6 wrt. output 1
conditions = [{"features.6": [50], "y": [1]}]

attr = attribution(data, conditions, composite, record_layer=layer_names)

# heatmap and prediction
attr.heatmap, attr.prediction
# activations and relevances for each layer name
attr.activations, attr.relevances

print(layer_names)
print("heatmap", attr.heatmap.shape, "prediction", attr.prediction.round(1))

# %%
# relative importance of each concept for final prediction
attr = attribution(data, [{"y": [0]}], composite, record_layer=layer_names)
rel_c = cc.attribute(attr.relevances["features.8"])[0]
# most relevant channels in features.8
concept_ids = np.argsort(-rel_c)
print({int(channel): f"{rel_c[channel]:.0%}" for channel in concept_ids[:5]})

# %% [markdown]
# ## Feature visualisation
#
# One pass over the data set finds, for all layers at once, the pictures in which each channel is most relevant and
# most active. What is found lies in the folder "FeatureVisualization"; a run that is interrupted goes on there.

# %%
# define which concept is used in each layer
layer_map = {name: cc for name in layer_names}  # noqa: C420

# compute visualization
fv = FeatureVisualization(attribution, dataset, layer_map)
fv.run(composite, 0, len(dataset))

# visualize MaxRelevance reference images for top-5 concepts
ref_c = fv.get_max_reference(concept_ids[:5], "features.8", "relevance", composite=composite)

plot_grid(ref_c)

# %% [markdown]
# A row is a channel: the pictures to which it matters most, and where in them. Looked at closer, at the one position
# where it is largest, each row shows one thing, in whatever colour the bird has it.

# %%
closer = fv.get_max_reference(
    concept_ids[:5], "features.8", "relevance", composite=composite, rf=True, plot_fn=vis_opaque_img
)
plot_grid(closer)

# %% [markdown]
# ## One prediction, channel by channel
#
# On the left the heatmap that any attribution method gives: it says where. On the right each of the most relevant
# channels: how much of the relevance goes through it, where, and what it stands for.

# %%
from craft_onnx.show.relevance import ConceptRow, conditional_figure, maximization_figure

most = [int(channel) for channel in concept_ids[:5]]
through = attribution(data, [{"features.8": [channel], "y": [0]} for channel in most], composite).heatmap
rows = [ConceptRow(channel, rel_c[channel], through[i], closer[channel][:5]) for i, channel in enumerate(most)]
conditional_figure(sample.picture, attr.heatmap[0], rows, title=f"class 0, {birds.class_names()[0]}")

# %% [markdown]
# ## What activates a channel most, and what it is used for
#
# ActMax takes the pictures in which a channel is most active, RelMax those in which it matters most to the
# prediction; and a picture can be generated that activates it more than any photograph does.

# %%
channel = most[0]
by_activation = fv.get_max_reference(channel, "features.8", "activation", composite=composite, plot_fn=vis_opaque_img)
by_relevance = fv.get_max_reference(channel, "features.8", "relevance", composite=composite, plot_fn=vis_opaque_img)
generated = co.generate_maximal(model, [channel], layer="features.8", steps=128)
classes, means = fv.compute_stats(channel, "features.8", top_N=3)
print(
    "classes that it speaks for:",
    {birds.class_names()[k]: f"{mean:.0%}" for k, mean in zip(classes, means, strict=True)},
)
maximization_figure(
    by_activation[channel], by_relevance[channel], f"features.8, channel {channel}", generated.pictures[0]
)

# %% [markdown]
# ## Concepts of CRAFT as concepts of relevance
#
# A concept of CRAFT is a direction across channels. `NMFConcept` divides relevance among the concepts of a bank, at
# every position; here those of the class whose birds often wear a leg tag, which the model takes for the class.

# %%
TAGGED = birds.TAGGED
craft = co.Craft(model, number_of_concepts=8, patch_size=32)
craft.fit(model.preprocess([bird.picture for bird in birds.draw_many(120, [TAGGED], seed=1)]), class_id=TAGGED)
tagged = next(bird for bird in birds.draw_many(60, [TAGGED], seed=9) if bird.shows("tag"))
x = model.preprocess(tagged.picture)

nmf = co.NMFConcept(craft)
found = attribution(x, [{"features.9": [k], "y": [TAGGED]} for k in range(8)], "epsilon_plus", mask_map=nmf)
whole = attribution(x, [{"y": [TAGGED]}], "epsilon_plus", record_layer=["features.9"])
share = nmf.attribute(whole.relevances["features.9"], activations=whole.activations["features.9"])[0]
rows = [ConceptRow(f"concept {k}", share[k], found.heatmap[k], craft.best_crops(k, 5)) for k in np.argsort(-share)[:4]]
conditional_figure(tagged.picture, whole.heatmap[0], rows, title=birds.class_names()[TAGGED])

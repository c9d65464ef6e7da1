"""The five traits, in the order that every array, file and plot of this program uses."""

TRAITS = ("openness", "conscientiousness", "extraversion", "agreeableness", "neuroticism")

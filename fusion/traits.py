"""The five traits, in the one order that every array, file and plot of this program uses."""

TRAITS = ("openness", "conscientiousness", "extraversion", "agreeableness", "neuroticism")

"""Networks from the model zoos of the frameworks, tried one by one: conversion, cut, gradient."""

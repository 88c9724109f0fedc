"""The benchmark: datasets × protocols × encoders × registrars, as rows that anyone can make anew from one file."""
